//! The thread's end of a partition: what the read function gives, as rows in builders, and builders on their way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use couatl_core::{Error, Input, Mode, Parameter, Result};
use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyInt, PyIterator, PyList, PyString, PyTuple};
use pyo3::{ffi, intern};

use crate::body::Role;
use crate::call;
use crate::clock::{Clock, Samples};
use crate::connector::{Reading, is_connector};
use crate::convert::{ArrowBatches, Layout, Recast, Rows, describe, import, is_arrow};
use crate::delivery::Delivery;
use crate::function::{self, TableCall};
use crate::interrupt::Control;
use crate::program::{Opened, Program, cancelled, user};
use crate::scan::Parcel;

/// Tuples of a list that are converted together, column by column: few enough to stay in the cache meanwhile.
const CHUNK_ROWS: usize = 128;

/// How long a thread has the interpreter before it lets others have it. Who waits asks for it after 5 ms, and only who was
/// asked really hands it over; a thread that lets go of it before takes it back before anybody has woken up.
const LONGEST_HOLD: Duration = Duration::from_millis(10);

/// What there is to read.
pub(crate) enum Returned<'py> {
    /// No row is wanted, and nothing was called.
    Nothing,
    /// Rows, or what gives them.
    Rows(Bound<'py, PyAny>),
    /// A connector, which has partitions.
    Connector(Reading),
}

/// The thread's end: what the read function returns, as rows.
pub(crate) struct Reader<'a, 'py> {
    py: Python<'py>,
    program: &'a Program,
    control: &'a Control,
    clock: &'a Clock,
    delivery: &'a Delivery<Rows, Parcel>,
    layout: Arc<Layout>,
    /// The rows that wait; `None` while they are published.
    rows: Option<Box<Rows>>,
    /// Where tuples are gathered; empty in between.
    chunk: Vec<Bound<'py, PyTuple>>,
    /// What is read, and is to be closed.
    open: Option<Bound<'py, PyAny>>,
    count: u64,
    /// How many rows came before those that wait.
    begun: u64,
    /// Those of them that were converted one by one.
    converted: u64,
    fetch: u64,
    samples: Samples,
    /// When others could last have the interpreter.
    breath: Instant,
}

impl<'a, 'py> Reader<'a, 'py> {
    pub(crate) fn new(
        py: Python<'py>,
        program: &'a Program,
        control: &'a Control,
        clock: &'a Clock,
        delivery: &'a Delivery<Rows, Parcel>,
        layout: Arc<Layout>,
        fetch: Option<usize>,
    ) -> Result<Self> {
        // Types that no stream can have are refused here, before user code runs.
        let rows = Some(Box::new(Rows::new(py, layout.clone(), 0)?));
        let fetch = fetch.map_or(u64::MAX, |fetch| fetch as u64);
        let samples = Samples::default();
        Ok(Self {
            py,
            program,
            control,
            clock,
            delivery,
            layout,
            rows,
            chunk: Vec::new(),
            open: None,
            count: 0,
            begun: 0,
            converted: 0,
            fetch,
            samples,
            breath: Instant::now(),
        })
    }

    /// Calls the read function, unless it is a connector itself.
    pub(crate) fn call(&self, thread: &Opened<'_>) -> Result<Returned<'py>> {
        if self.fetch == 0 {
            return Ok(Returned::Nothing);
        }
        let function = thread.function(self.py, Role::Read, 0)?;
        if let Some(reading) = self.connector(&function, thread)? {
            return Ok(Returned::Connector(reading));
        }
        let returned = user(self.py, self.control, || function.call0()).map_err(|error| self.raised(error))?;
        let connector = match returned.cast::<PyIterator>() {
            Ok(_) => None,
            Err(_) => self.connector(&returned, thread)?,
        };
        Ok(connector.map_or_else(|| Returned::Rows(returned), Returned::Connector))
    }

    /// Calls a function of SQL, which is given its arguments.
    pub(crate) fn call_table(
        &self,
        thread: &Opened<'_>,
        call: &TableCall,
        input: Option<Input>,
        control: &Arc<Control>,
    ) -> Result<Returned<'py>> {
        if self.fetch == 0 {
            return Ok(Returned::Nothing);
        }
        let arguments = call.arguments(self.py, input, control)?;
        let function = thread.function(self.py, Role::Table, arguments.len())?;
        let names: Vec<_> = call.definition.parameters.iter().map(Parameter::name).collect();
        let is_transform = call.definition.input().is_some();
        let takes_list = self.layout.only_takes_list();
        let returned = user(self.py, self.control, || {
            function::support(self.py)?.call_method1("table", (function, is_transform, takes_list, names, arguments))
        });
        returned.map(Returned::Rows).map_err(|error| call::refused(self.py, self.program, self.control, error))
    }

    fn connector(&self, thing: &Bound<'py, PyAny>, thread: &Opened<'_>) -> Result<Option<Reading>> {
        let reading = user(self.py, self.control, || match is_connector(thing, Role::Read)? {
            true => Reading::new(thing, &self.program.definition, thread.options(self.py)).map(Some),
            false => Ok(None),
        });
        reading.map_err(|error| self.raised(error))
    }

    /// Delivers what the read function gave.
    pub(crate) fn run(&mut self, returned: &Bound<'py, PyAny>) -> Result<()> {
        self.delivering(|reader| reader.read(returned))
    }

    /// Delivers the rows of some of a connector's partitions, one after the other.
    pub(crate) fn pull(&mut self, reading: &Reading, partitions: &[String]) -> Result<()> {
        self.delivering(|reader| {
            for partition in partitions {
                if reader.count >= reader.fetch {
                    break;
                }
                let read = reader.partition(reading, partition);
                crate::program::settle(read, [reader.close()])?;
            }
            Ok(())
        })
    }

    fn partition(&mut self, reading: &Reading, name: &str) -> Result<()> {
        let pull = user(self.py, self.control, || reading.open(self.py, name)).map_err(|error| self.raised(error))?;
        self.open = Some(pull.0.clone());
        let iterator = pull.0.try_iter().map_err(|error| self.raised(error))?;
        if iterator.is(&pull.0) {
            self.control.released_by(Some(pull.cancel().map_err(|error| self.raised(error))?));
        }
        let read = self.steps(&iterator);
        self.control.released_by(None);
        read
    }

    /// The rows before an error are delivered too.
    fn delivering(&mut self, read: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        // Values have code of their own, which a cancel interrupts: what it raises then is no misfit.
        let read = read(self).map_err(|error| match self.control.is_cancelled() {
            true => cancelled(&self.layout.subject),
            false => error,
        });
        self.flush();
        self.clock.converted(self.samples.rest(self.converted));
        read
    }

    fn read(&mut self, returned: &Bound<'py, PyAny>) -> Result<()> {
        let mode = self.program.definition.mode;
        if let Ok(list) = returned.cast::<PyList>() {
            return if mode == Mode::Streaming { Err(self.wrong_shape(returned)) } else { self.list(list) };
        }
        let iterator = returned.cast::<PyIterator>().ok().cloned();
        if (mode != Mode::Streaming || iterator.is_some())
            && let Some(batches) = self.import(returned)?
        {
            return self.arrow(batches);
        }
        if mode == Mode::Batch {
            return Err(self.wrong_shape(returned));
        }
        if let Some(iterator) = iterator {
            return self.iterate(iterator);
        }
        // An object with an `__iter__` and no length is iterated; what has a length is a container of no known shape.
        let has = |name| returned.hasattr(name).unwrap_or(false);
        if has("__iter__") && !has("__len__") {
            let made = user(self.py, self.control, || returned.try_iter()).map_err(|error| self.raised(error))?;
            return self.iterate(made);
        }
        Err(self.wrong_shape(returned))
    }

    fn iterate(&mut self, iterator: Bound<'py, PyIterator>) -> Result<()> {
        self.open = Some(iterator.clone().into_any());
        self.steps(&iterator)
    }

    fn steps(&mut self, iterator: &Bound<'py, PyIterator>) -> Result<()> {
        while let Some(item) = self.next(iterator)? {
            self.item(&item)?;
            if self.count >= self.fetch {
                break;
            }
        }
        Ok(())
    }

    /// One step of the user's iterator. Meanwhile, the consumer may have the rows that wait.
    #[inline]
    fn next(&mut self, iterator: &Bound<'py, PyIterator>) -> Result<Option<Bound<'py, PyAny>>> {
        if self.control.is_cancelled() {
            return Err(cancelled(&self.layout.subject));
        }
        self.publish();
        let object = iterator.as_ptr();
        #[expect(unsafe_code, reason = "the iterator is stepped once per row, through the C API")]
        // SAFETY: attached; an iterator's type has the slot, which gives a new reference, or null at the end or with an
        // exception set.
        let item = user(self.py, self.control, || unsafe {
            let step = (*ffi::Py_TYPE(object)).tp_iternext.unwrap_or(ffi::PyIter_Next);
            Bound::from_owned_ptr_or_opt(self.py, step(object))
        });
        self.take_back();
        match item {
            Some(item) => Ok(Some(item)),
            None => match PyErr::take(self.py) {
                Some(error) if !error.is_instance_of::<PyStopIteration>(self.py) => Err(self.raised(error)),
                _ => Ok(None),
            },
        }
    }

    #[inline]
    fn publish(&mut self) {
        if let Some(rows) = self.take_waiting() {
            self.delivery.publish(rows);
        }
    }

    /// The builders, if there are rows in them.
    #[inline]
    fn take_waiting(&mut self) -> Option<Box<Rows>> {
        self.rows.take_if(|rows| rows.len() > 0)
    }

    #[inline]
    fn take_back(&mut self) {
        if self.rows.is_none() {
            self.rows = self.delivery.take_back();
        }
    }

    /// The builders; fresh ones where the consumer has taken the last, with room for as many rows as those had.
    #[inline]
    fn rows(&mut self) -> Result<&mut Rows> {
        if self.rows.is_none() {
            self.rows = Some(self.fresh()?);
        }
        self.rows.as_deref_mut().ok_or_else(|| Error::internal("a scan without builders"))
    }

    #[cold]
    fn fresh(&mut self) -> Result<Box<Rows>> {
        let rows = usize::try_from(self.count - self.begun).unwrap_or(0);
        self.begun = self.count;
        Ok(Box::new(Rows::new(self.py, self.layout.clone(), rows)?))
    }

    /// What was yielded, by its shape.
    fn item(&mut self, item: &Bound<'py, PyAny>) -> Result<()> {
        if let Ok(tuple) = item.cast::<PyTuple>() {
            let Some(first) = tuple.as_slice().first() else {
                self.flush();
                return Ok(());
            };
            let batch = first.is_instance_of::<PyList>() || first.is_instance_of::<PyTuple>();
            if !batch || self.layout.first_takes_tuple() {
                return self.row(item);
            }
            for row in tuple.iter() {
                if self.count >= self.fetch {
                    break;
                }
                self.row(&row)?;
            }
            return Ok(());
        }
        if let Ok(list) = item.cast::<PyList>() {
            return self.list(list);
        }
        if item.is_none() {
            self.flush();
            return Ok(());
        }
        let plain = item.is_instance_of::<PyDict>()
            || item.is_instance_of::<PyString>()
            || item.is_instance_of::<PyInt>()
            || item.is_instance_of::<PyFloat>()
            || item.is_instance_of::<PyBytes>();
        if !plain && let Some(batches) = self.import(item)? {
            return self.arrow(batches);
        }
        self.row(item)
    }

    /// A list of rows, or of Arrow objects; an empty one delivers what waits.
    fn list(&mut self, list: &Bound<'py, PyList>) -> Result<()> {
        if list.is_empty() {
            self.flush();
            return Ok(());
        }
        let mut index = 0;
        let mut arrow = false;
        // By position and length anew: the list is the user's, and its values' own code may change it.
        while index < list.len() && self.count < self.fetch {
            let tuples = self.tuples(list, index)?;
            index += tuples;
            if tuples > 0 {
                continue;
            }
            let row = list.get_item(index).map_err(|error| self.raised(error))?;
            // The first tells for all: asking each of them would cost bare values dear.
            if index == 0 {
                arrow = !self.layout.only_takes_list() && is_arrow(&row);
            }
            index += 1;
            if arrow && let Some(batches) = self.import(&row)? {
                self.arrow(batches)?;
            } else {
                self.row(&row)?;
            }
        }
        Ok(())
    }

    /// Converts the tuples that stand here in a list; gives how many it did.
    fn tuples(&mut self, list: &Bound<'py, PyList>, index: usize) -> Result<usize> {
        let width = self.layout.declared.fields().len();
        let most = usize::try_from(self.fetch - self.count).unwrap_or(usize::MAX).min(CHUNK_ROWS);
        let most = most.min(self.layout.batch_rows.saturating_sub(self.rows()?.len()));
        let mut chunk = std::mem::take(&mut self.chunk);
        for index in index..list.len().min(index + most) {
            #[expect(unsafe_code, reason = "the list is walked once per row")]
            // SAFETY: attached; the list is longer than that, and nothing runs meanwhile that could change it.
            let item = unsafe { list.get_item_unchecked(index) };
            match item.cast_into::<PyTuple>() {
                Ok(tuple) if tuple.as_slice().len() == width => chunk.push(tuple),
                _ => break,
            }
        }
        if chunk.is_empty() {
            self.chunk = chunk;
            return Ok(0);
        }
        let (py, control, number) = (self.py, self.control, self.count + 1);
        let start = Instant::now();
        let rows = self.rows()?;
        let (fit, converted) = user(py, control, || rows.extend(&chunk, number));
        let full = rows.is_full();
        self.clock.converted(start.elapsed());
        self.count += fit as u64;
        chunk.clear();
        self.chunk = chunk;
        converted?;
        if full {
            self.full();
        }
        if self.control.is_cancelled() {
            return Err(cancelled(&self.layout.subject));
        }
        Ok(fit)
    }

    /// The batches of an Arrow object; `None` if it is none.
    fn import(&self, object: &Bound<'py, PyAny>) -> Result<Option<ArrowBatches>> {
        let arrow = user(self.py, self.control, || import(object)).map_err(|error| self.raised(error))?;
        arrow.transpose().map_err(|error| self.located(&error))
    }

    #[inline(always)]
    fn row(&mut self, row: &Bound<'py, PyAny>) -> Result<()> {
        self.converted += 1;
        if Samples::wants(self.converted) {
            return self.sample(row);
        }
        let (py, control, number) = (self.py, self.control, self.count + 1);
        let rows = self.rows()?;
        user(py, control, || rows.push(row, number))?;
        let full = rows.is_full();
        self.count = number;
        if full {
            self.full();
        }
        Ok(())
    }

    /// A row that is measured. Few are, so this is where a cancel is looked for that no code of the user's waits for.
    #[inline(never)]
    fn sample(&mut self, row: &Bound<'py, PyAny>) -> Result<()> {
        if self.control.is_cancelled() {
            return Err(cancelled(&self.layout.subject));
        }
        let (py, control, number) = (self.py, self.control, self.count + 1);
        let start = Instant::now();
        let rows = self.rows()?;
        user(py, control, || rows.push(row, number))?;
        let full = rows.is_full();
        self.count = number;
        self.clock.converted(self.samples.add(self.converted, start.elapsed()));
        self.breathe();
        if full {
            self.full();
        }
        Ok(())
    }

    /// Delivers a full batch.
    #[cold]
    fn full(&mut self) {
        self.flush();
        self.breathe();
    }

    /// Lets others have the interpreter, where this thread has had it for long enough. Python looks by itself whether
    /// others want it, but only between bytecodes, and a long list, or an iterator that is written in C, has none.
    fn breathe(&mut self) {
        if self.breath.elapsed() >= LONGEST_HOLD {
            self.py.detach(|| {});
            self.breath = Instant::now();
        }
    }

    /// An Arrow object's batches, after the rows that wait.
    fn arrow(&mut self, mut batches: ArrowBatches) -> Result<()> {
        self.flush();
        let declared = &self.layout.declared;
        let only = (declared.fields().len() == 1).then(|| declared.field(0).name().clone());
        while self.count < self.fetch {
            // Its callbacks may be user code.
            let next = user(self.py, self.control, || batches.next(self.py, only.as_deref()));
            if self.control.is_cancelled() {
                return Err(cancelled(&self.layout.subject));
            }
            let next = next.map_err(|error| self.raised(error))?;
            let Some(batch) = next.map_err(|error| self.located(&error))? else { break };
            if batch.num_rows() == 0 {
                continue;
            }
            let start = Instant::now();
            let wanted = usize::try_from(self.fetch - self.count).unwrap_or(usize::MAX).min(batch.num_rows());
            let recast = Recast { layout: &self.layout };
            let batch = recast.batch(self.py, &batch.slice(0, wanted), self.count)?;
            self.clock.converted(start.elapsed());
            self.count += wanted as u64;
            self.send(Parcel::Batch(batch));
            self.breathe();
        }
        Ok(())
    }

    fn located(&self, error: &Error) -> Error {
        Error::new(error.kind(), format!("{}: {error}", self.layout.subject))
    }

    /// Delivers the rows that wait, at once.
    fn flush(&mut self) {
        if let Some(rows) = self.take_waiting() {
            self.send(rows.into());
        }
    }

    fn send(&mut self, mut parcel: Parcel) {
        while let Some(back) = self.delivery.try_push(parcel) {
            parcel = back;
            self.clock.wait(self.py, || self.delivery.wait_for_room());
        }
    }

    /// Closes what is open, by its own thread: the `finally` blocks of a generator run.
    pub(crate) fn close(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let closed = match open.getattr_opt(intern!(self.py, "close")) {
            Ok(Some(close)) => close.call0().map(drop),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        closed.map_err(|error| {
            let what = format!("closing {}", self.program.what(Role::Read));
            crate::exception::raised(self.py, self.program.body(), &self.layout.subject, &what, error)
        })
    }

    pub(crate) fn raised(&self, error: PyErr) -> Error {
        self.program.raised(self.py, self.control, &self.program.what(Role::Read), error)
    }

    #[cold]
    fn wrong_shape(&self, returned: &Bound<'py, PyAny>) -> Error {
        let has = |name| returned.hasattr(name).unwrap_or(false);
        let (subject, what) = (&self.layout.subject, self.program.what(Role::Read));
        let mode = self.program.definition.mode;
        let class = returned.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
        let found = if has("__await__") {
            // Nobody will await it: closed, it does not say so on standard error.
            let _ = returned.call_method0("close");
            "a coroutine; a read function is not awaited: run it with asyncio.run and return its result".to_owned()
        } else if has("__anext__") {
            "an asynchronous generator; make it a plain generator, and run what is asynchronous inside it with \
             asyncio.run or loop.run_until_complete"
                .to_owned()
        } else if returned.is_none() {
            "None; does it lack a return or a yield?".to_owned()
        } else if has("__next__") {
            format!("{} {class}; return a list, or set mode = 'streaming'", article(&class))
        } else if returned.is_instance_of::<PyList>() {
            "a list; yield its rows, or set mode = 'batch'".to_owned()
        } else {
            describe(returned)
        };
        let expected = match mode {
            Mode::Batch => "a list of rows or an Arrow object, as mode 'batch' says",
            Mode::Streaming => "a generator or another iterator, as mode 'streaming' says",
            Mode::Auto => "a generator or another iterator, a list of rows, or an Arrow object",
        };
        Error::type_mismatch(format!("{subject}: expected {what} to return {expected}, got {found}"))
    }
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}
