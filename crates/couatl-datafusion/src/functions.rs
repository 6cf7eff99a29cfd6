//! The functions of a session, and of all that share its streams: made, dropped, found by their names.

use std::collections::BTreeMap;
use std::sync::Arc;

use couatl_core::{Error, Function, FunctionDefinition, Result, Returns};
use couatl_sql::{CreateFunction, create_function_statement};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use parking_lot::RwLock;

use crate::access::Role;
use crate::aggregate::PythonAggregate;
use crate::calling::{Callee, Defined};
use crate::scalar::PythonScalar;
use crate::session::Session;
use crate::table::HIDDEN_BODY;
use crate::table_function::Listed;

/// Functions by name.
#[derive(Debug, Default)]
pub(crate) struct Functions(RwLock<BTreeMap<String, Arc<Defined>>>);

impl Functions {
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Defined>> {
        self.0.read().get(name).cloned()
    }

    /// The error of a statement that calls one for a value which gives rows: DataFusion knows it not.
    pub(crate) fn explained(&self, error: Error) -> Error {
        let text = error.to_string();
        let name = text.strip_prefix("Invalid function '").and_then(|rest| rest.split('\'').next()).unwrap_or_default();
        match self.get(name).map(|function| function.function.clone()) {
            Some(Function::Table(_)) => Error::invalid_argument(format!(
                "function '{name}': it gives rows, as in SELECT * FROM {name}(…), and no value"
            )),
            _ => error,
        }
    }

    /// Lets statements that are planned in a state call them.
    pub(crate) fn install(&self, state: &mut SessionState) {
        for (name, function) in &*self.0.read() {
            let callee = Callee::new(Arc::clone(function));
            let installed = match (&function.function, function.definition.is_aggregate) {
                (Function::Value(_), false) => {
                    state.register_udf(Arc::new(ScalarUDF::from(PythonScalar::new(callee)))).map(drop)
                }
                (Function::Value(_), true) => {
                    state.register_udaf(Arc::new(AggregateUDF::from(PythonAggregate::new(callee)))).map(drop)
                }
                (Function::Table(_), _) => {
                    state.register_udtf(name, Arc::new(Listed(Arc::clone(function))));
                    Ok(())
                }
            };
            // A state takes any function.
            debug_assert!(installed.is_ok(), "{installed:?}");
        }
    }
}

impl Session {
    pub(crate) async fn create_function(&self, create: &CreateFunction) -> Result<()> {
        self.needs(Role::Developer, "create functions: their Python runs on the server")?;
        // Another one may have come meanwhile, which is replaced, or stays, in its turn.
        while !self.created_function(create).await? {}
        Ok(())
    }

    /// Whether there is one, of this statement or of an earlier one.
    async fn created_function(&self, create: &CreateFunction) -> Result<bool> {
        let name = &create.definition.name;
        let seen = self.functions().get(name);
        if let Some(existing) = &seen {
            if create.if_not_exists {
                return Ok(true);
            }
            if !create.or_replace {
                return Err(Error::already_exists(format!(
                    "a function named '{name}' exists already; use CREATE OR REPLACE, or drop it first"
                )));
            }
            self.owns(existing)?;
        }
        let definition = Arc::new(create.definition.clone());
        let asked = Arc::clone(&definition);
        let function = self.on_host(move |host| host.function(asked)).await?;
        match self.put(definition, function, Some(seen))? {
            false if !(create.or_replace || create.if_not_exists) => {
                Err(Error::already_exists(format!("function '{name}' was made meanwhile")))
            }
            is_put => Ok(is_put),
        }
    }

    /// Gives a function its name, in the place of one that has it.
    ///
    /// # Errors
    /// `already-exists`, where a function of SQL has the name.
    pub fn register_function(&self, definition: Arc<FunctionDefinition>, function: Function) -> Result<()> {
        self.put(definition, function, None).map(drop)
    }

    /// The same, if what has the name is what was seen: whether it was.
    fn put(
        &self,
        definition: Arc<FunctionDefinition>,
        function: Function,
        seen: Option<Option<Arc<Defined>>>,
    ) -> Result<bool> {
        let owners = self.caller().names().collect();
        let name = definition.name.clone();
        if self.is_built_in(&name, &definition.returns) {
            return Err(Error::already_exists(format!("'{name}' is a function of SQL; choose another name")));
        }
        let mut all = self.functions().0.write();
        if seen.is_some_and(|seen| seen.as_ref().map(Arc::as_ptr) != all.get(&name).map(Arc::as_ptr)) {
            return Ok(false);
        }
        let old = all.insert(name, Arc::new(Defined::new(definition, function, owners)));
        // Its Python may have code of its own, which is not run under the lock.
        drop(all);
        drop(old);
        Ok(true)
    }

    pub(crate) fn drop_function(&self, name: &str, if_exists: bool) -> Result<()> {
        self.needs(Role::Developer, "drop functions")?;
        let Some(existing) = self.functions().get(name) else {
            return if if_exists { Ok(()) } else { Err(no_function(name)) };
        };
        self.owns(&existing)?;
        let old = self.functions().0.write().remove(name);
        drop(old);
        Ok(())
    }

    /// A statement that makes the function; its body is for those who created it, and for admins.
    pub(crate) fn function_statement(&self, name: &str) -> Result<String> {
        let function = self.functions().get(name).ok_or_else(|| no_function(name))?;
        let mut definition = FunctionDefinition::clone(&function.definition);
        if !self.caller().principals().all(|user| user.sees_code_of(&function.owners)) {
            definition.body.text = Arc::from(HIDDEN_BODY);
        }
        Ok(create_function_statement(&definition))
    }

    /// Refuses what only its creator may do with a function.
    fn owns(&self, function: &Defined) -> Result<()> {
        let name = &function.definition.name;
        self.caller().principals().try_for_each(|user| match function.owners.contains(&user.name) {
            true => Ok(()),
            false => user.needs(Role::Admin, &format!("replace or drop the function '{name}' of somebody else")),
        })
    }

    /// Whether a function of SQL is called where this one would be.
    fn is_built_in(&self, name: &str, returns: &Returns) -> bool {
        let state = self.context().state();
        match returns {
            Returns::Table(_) => state.table_functions().contains_key(name),
            Returns::Value(_) => {
                state.scalar_functions().contains_key(name)
                    || state.aggregate_functions().contains_key(name)
                    || state.window_functions().contains_key(name)
            }
        }
    }
}

fn no_function(name: &str) -> Error {
    Error::not_found(format!("there is no function '{name}' in Python"))
}
