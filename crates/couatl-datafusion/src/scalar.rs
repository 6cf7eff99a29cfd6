//! A function of Python that gives a value for each row, as DataFusion calls it.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array, new_empty_array, new_null_array};
use arrow::buffer::NullBuffer;
use arrow::compute::{filter, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use couatl_core::{Call, Error, FunctionDefinition, Returns, type_spelling};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};

use crate::calling::{Callee, Opened};
use crate::into_datafusion;
use crate::store::{can_store, store};

/// The function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct PythonScalar {
    callee: Callee,
    signature: Signature,
}

impl PythonScalar {
    pub(crate) fn new(callee: Callee) -> Self {
        let signature = signature(&callee.defined.definition);
        Self { callee, signature }
    }

    pub(crate) fn callee(&self) -> &Callee {
        &self.callee
    }

    fn definition(&self) -> &FunctionDefinition {
        &self.callee.defined.definition
    }
}

impl ScalarUDFImpl for PythonScalar {
    fn name(&self) -> &str {
        self.callee.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn documentation(&self) -> Option<&Documentation> {
        Some(&self.callee.defined.documentation)
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(returned(self.definition()).data_type().clone())
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        check_arguments(self.definition(), arguments.arg_fields)?;
        let is_nullable = self.definition().is_strict && arguments.arg_fields.iter().any(|field| field.is_nullable());
        let field = returned(self.definition());
        let is_nullable = is_nullable || field.is_nullable();
        Ok(Arc::new(field.with_nullable(is_nullable)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let opened = self.callee.open()?;
        let arguments_are_equal = arguments.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let once = arguments_are_equal && self.signature.volatility != Volatility::Volatile;
        let rows = if once { 1 } else { arguments.number_rows };
        let columns = arguments.args.into_iter().map(|value| value.into_array(rows)).collect::<Result<Vec<_>>>()?;
        let values = called(self.definition(), &opened, stored(self.definition(), columns)?, rows)?;
        match once {
            true => ScalarValue::try_from_array(&values, 0).map(ColumnarValue::Scalar),
            false => Ok(ColumnarValue::Array(values)),
        }
    }
}

/// How the functions of a definition are called. [`check_arguments`] looks at the arguments, which are brought to what
/// they must be where the rows are: exactly.
pub(crate) fn signature(definition: &FunctionDefinition) -> Signature {
    let volatility = match definition.volatility {
        // What is immutable, DataFusion computes while it plans, too.
        couatl_core::Volatility::Immutable | couatl_core::Volatility::Stable => Volatility::Stable,
        couatl_core::Volatility::Volatile => Volatility::Volatile,
    };
    // Those of its parameters are what `SHOW FUNCTIONS` lists.
    let declared = TypeSignature::Exact(definition.values().map(|field| field.data_type().clone()).collect());
    Signature::one_of(vec![declared, TypeSignature::Nullary, TypeSignature::VariadicAny], volatility)
}

/// What a function gives, by its name.
pub(crate) fn returned(definition: &FunctionDefinition) -> Field {
    match &definition.returns {
        Returns::Value(field) => Field::clone(field).with_name(&definition.name),
        Returns::Table(_) => Field::new(&definition.name, DataType::Null, true),
    }
}

/// Refuses arguments that are too many, too few, or of types of which a parameter holds no value.
pub(crate) fn check_arguments(definition: &FunctionDefinition, found: &[FieldRef]) -> Result<()> {
    let name = &definition.name;
    let parameters: Vec<_> = definition.values().collect();
    if parameters.len() != found.len() {
        let expected: Vec<_> =
            parameters.iter().map(|field| format!("{} {}", field.name(), type_spelling(field))).collect();
        return Err(into_datafusion(Error::invalid_argument(format!(
            "function '{name}' takes {} argument{} ({}), found {}",
            parameters.len(),
            if parameters.len() == 1 { "" } else { "s" },
            expected.join(", "),
            found.len()
        ))));
    }
    for (field, found) in parameters.into_iter().zip(found) {
        if !can_store(found.data_type(), field) {
            let (parameter, to) = (field.name(), type_spelling(field));
            let found = type_spelling(found);
            return Err(into_datafusion(Error::invalid_argument(format!(
                "function '{name}', argument '{parameter}' ({to}): cannot take a value of {found}; CAST it"
            ))));
        }
    }
    Ok(())
}

/// Arguments as their parameters have them.
pub(crate) fn stored(definition: &FunctionDefinition, columns: Vec<ArrayRef>) -> Result<Vec<ArrayRef>> {
    let stored = columns.iter().zip(definition.values()).map(|(column, field)| {
        store(column, field).map_err(|misfit| {
            let (name, parameter, to) = (&definition.name, field.name(), type_spelling(field));
            let reason = misfit.reason;
            into_datafusion(Error::invalid_argument(format!(
                "function '{name}', argument '{parameter}' ({to}): cannot take {reason}"
            )))
        })
    });
    stored.collect()
}

/// The rows in which no argument is NULL; none where that is all of them, or NULLs are given to the function.
pub(crate) fn without_nulls(definition: &FunctionDefinition, columns: &[ArrayRef]) -> Option<BooleanArray> {
    if !definition.is_strict {
        return None;
    }
    let nulls = columns.iter().map(Array::logical_nulls);
    let nulls = nulls.fold(None, |all, nulls| NullBuffer::union(all.as_ref(), nulls.as_ref()))?;
    (nulls.null_count() > 0).then(|| BooleanArray::new(nulls.inner().clone(), None))
}

fn called(definition: &FunctionDefinition, opened: &Opened, columns: Vec<ArrayRef>, rows: usize) -> Result<ArrayRef> {
    let of = returned(definition);
    if rows == 0 {
        return Ok(new_empty_array(of.data_type()));
    }
    let Some(whole) = without_nulls(definition, &columns) else {
        return opened.call(Call::Rows { arguments: columns, rows });
    };
    let left = whole.true_count();
    if left == 0 {
        return Ok(new_null_array(of.data_type(), rows));
    }
    let columns = columns.iter().map(|column| filter(column, &whole)).collect::<std::result::Result<_, _>>()?;
    let values = opened.call(Call::Rows { arguments: columns, rows: left })?;
    let mut next = 0..;
    let places: UInt32Array = whole.values().iter().map(|is_whole| is_whole.then(|| next.next()).flatten()).collect();
    Ok(take(&values, &places, None)?)
}
