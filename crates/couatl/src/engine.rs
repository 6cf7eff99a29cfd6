//! An engine: a session over the embedded interpreter.

use std::path::PathBuf;
use std::sync::Arc;

use couatl_core::Result;
use couatl_datafusion::{Session, SessionSettings};
use couatl_python::PythonHost;
use datafusion::dataframe::DataFrame;

/// A session whose streams run in this process's Python. Cheap to clone; everything inside is shared.
#[derive(Debug, Clone)]
pub struct Engine {
    session: Session,
}

/// What an engine is to be made of.
#[derive(Debug, Default)]
pub struct EngineBuilder {
    python: Option<PathBuf>,
    settings: SessionSettings,
}

impl Engine {
    /// An engine to be put together.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// The session, for what is not here: preparing statements, the list of queries, the DataFusion context.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Runs a text of one or several statements, see [`Session::sql`].
    ///
    /// # Errors
    /// What is wrong with the text; errors of user code come with the rows.
    pub async fn sql(&self, text: &str) -> Result<DataFrame> {
        self.session.sql(text).await
    }
}

impl EngineBuilder {
    /// The Python environment whose packages the bodies see: the folder of a virtual environment, or a Python
    /// executable. Without it, that of `VIRTUAL_ENV`, else the one that the linked library belongs to.
    ///
    /// A process has one Python: the first engine decides.
    #[must_use]
    pub fn python(mut self, environment: impl Into<PathBuf>) -> Self {
        self.python = Some(environment.into());
        self
    }

    /// What its session begins with: limits, and where secrets are.
    #[must_use]
    pub fn settings(mut self, settings: SessionSettings) -> Self {
        self.settings = settings;
        self
    }

    /// Starts the interpreter, unless it runs, and makes the engine.
    ///
    /// # Errors
    /// `invalid-argument` where there is no Python in that place, or the process already runs another one.
    pub fn build(self) -> Result<Engine> {
        let host = Arc::new(PythonHost::new(self.python.as_deref())?);
        let session = Session::with_settings(host, self.settings)?;
        Ok(Engine { session })
    }
}
