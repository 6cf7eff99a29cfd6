//! Who may do what.
//!
//! A role gives privileges on everything of a kind; GRANT and REVOKE say otherwise of one stream or table for one user.
//! A session without a user may do anything: it is the program's own, or that of a server which knows no users.
//!
//! What is checked is the plan: a view is its query, so that who reads it must be allowed to read what it reads.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use couatl_core::{Error, ErrorKind, Result, quoted};
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ResolvedTableReference, SchemaReference, TableReference};
use datafusion::datasource::listing::ListingTable;
use datafusion::datasource::source_as_provider;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{
    CreateMemoryTable, CreateView, DdlStatement, DropCatalogSchema, DropTable, DropView, LogicalPlan, ResetVariable,
    SetVariable, Statement as PlanStatement, TableSource, WriteOp,
};
use parking_lot::RwLock;

use crate::catalog;
use crate::session::resolved;

pub use couatl_sql::Privilege;

/// What a user is for. Each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// SELECT.
    Reader,
    /// INSERT and ingestion; tables and views in memory.
    Writer,
    /// Python streams, external tables, COPY: code that runs on the server, and its files.
    Developer,
    /// KILL QUERY of others, all of `system`, GRANT and REVOKE, settings of the whole server.
    Admin,
}

impl Role {
    /// Every role, from the one that may least.
    pub const ALL: [Self; 4] = [Self::Reader, Self::Writer, Self::Developer, Self::Admin];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Writer => "writer",
            Self::Developer => "developer",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| {
            Error::invalid_argument(format!("'{text}' is no role; it is reader, writer, developer or admin"))
        })
    }
}

/// Somebody who has logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// By which the server knows them.
    pub name: Arc<str>,
    /// What they are for.
    pub role: Role,
}

impl User {
    /// Refuses what takes a higher role.
    pub(crate) fn needs(&self, role: Role, what: &str) -> Result<()> {
        if self.role >= role {
            return Ok(());
        }
        Err(self.denied(format!("{what}, which takes the role {role}")))
    }

    /// Whether they may see the code of what these have created.
    pub(crate) fn sees_code_of(&self, creators: &[Arc<str>]) -> bool {
        self.role == Role::Admin || creators.contains(&self.name)
    }

    fn denied(&self, what: impl fmt::Display) -> Error {
        let Self { name, role } = self;
        Error::new(ErrorKind::PermissionDenied, format!("user '{name}' ({role}) may not {what}"))
    }
}

/// Who there is.
pub trait Directory: fmt::Debug + Send + Sync {
    /// Whether somebody has this name.
    fn knows(&self, user: &str) -> bool;

    /// The names that others have now, since this was asked last: who had them was removed.
    fn replaced(&self) -> Vec<Arc<str>> {
        Vec::new()
    }
}

/// What was granted and revoked, for all sessions.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    /// Where nobody says who there is, there may be anybody.
    pub(crate) directory: OnceLock<Arc<dyn Directory>>,
    /// The privileges of users on tables, where their roles do not say it.
    said: RwLock<HashMap<Subject, HashMap<Privilege, bool>>>,
}

/// A user and a table.
type Subject = (Arc<str>, ResolvedTableReference);

impl Grants {
    /// Refuses a name that is nobody's: it would be a slip, and whoever is meant would keep what they have.
    pub(crate) fn check_user(&self, user: &str) -> Result<()> {
        if self.directory.get().is_none_or(|directory| directory.knows(user)) {
            return Ok(());
        }
        Err(Error::not_found(format!("there is no user '{user}'; `couatl user list` shows who there is")))
    }

    /// Forgets what was said of users whose names others have now.
    fn forget_replaced(&self) {
        let replaced = self.directory.get().map(|directory| directory.replaced()).unwrap_or_default();
        if !replaced.is_empty() {
            self.said.write().retain(|(user, _), _| !replaced.contains(user));
        }
    }

    pub(crate) fn say(&self, user: &str, table: ResolvedTableReference, privileges: &[Privilege], granted: bool) {
        self.forget_replaced();
        let mut said = self.said.write();
        let said = said.entry((user.into(), table)).or_default();
        said.extend(privileges.iter().map(|privilege| (*privilege, granted)));
    }

    /// Forgets what was said of tables that are no more: others of their names are others.
    pub(crate) fn forget(&self, tables: &[ResolvedTableReference]) {
        self.said.write().retain(|(_, said), _| !tables.contains(said));
    }

    fn said(&self, user: &Arc<str>, table: &ResolvedTableReference, privilege: Privilege) -> Option<bool> {
        self.forget_replaced();
        self.said.read().get(&(Arc::clone(user), table.clone()))?.get(&privilege).copied()
    }

    /// Refuses what a user may not do with a table.
    pub(crate) fn check(&self, user: &User, table: &ResolvedTableReference, privilege: Privilege) -> Result<()> {
        let least = match privilege {
            Privilege::Select => Role::Reader,
            Privilege::Insert => Role::Writer,
        };
        let granted = self.said(&user.name, table, privilege);
        // Nobody shuts out who can let themselves in again.
        if user.role == Role::Admin || granted.unwrap_or(user.role >= least) {
            return Ok(());
        }
        let table = &table.table;
        Err(match granted {
            Some(_) => user.denied(format!("{privilege} '{table}': it was revoked")),
            None => user.denied(format!(
                "{privilege} '{table}', which takes the role {least}, or GRANT {privilege} ON {} TO {}",
                quoted(table),
                quoted(&user.name)
            )),
        })
    }
}

/// What a plan does, as far as it must be allowed.
#[derive(Debug, Default)]
pub(crate) struct Deeds {
    tables: Vec<(Meant, Privilege)>,
    /// The schemas that go, with all that is in them.
    schemas: Vec<SchemaReference>,
    /// What takes a role, and which.
    roles: Vec<(Role, &'static str)>,
}

impl Deeds {
    pub(crate) fn of(plan: &LogicalPlan) -> datafusion::error::Result<Self> {
        let mut deeds = Self::default();
        plan.apply_with_subqueries(|node| {
            deeds.add(node);
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(deeds)
    }

    fn add(&mut self, node: &LogicalPlan) {
        let role = match node {
            LogicalPlan::TableScan(scan) => {
                self.tables.push((Meant::bound(&scan.table_name, &scan.source), Privilege::Select));
                return;
            }
            LogicalPlan::Dml(dml) => {
                self.tables.push((Meant::bound(&dml.table_name, &dml.target), Privilege::Insert));
                match dml.op {
                    WriteOp::Insert(_) => return,
                    _ => (Role::Writer, "change rows"),
                }
            }
            LogicalPlan::Copy(_) => (Role::Developer, "COPY rows to files"),
            LogicalPlan::Ddl(statement) => match statement {
                DdlStatement::CreateMemoryTable(CreateMemoryTable { name, .. })
                | DdlStatement::CreateView(CreateView { name, .. })
                | DdlStatement::DropTable(DropTable { name, .. })
                | DdlStatement::DropView(DropView { name, .. }) => {
                    // Who may not write into a table may not put another in its place either.
                    self.tables.push((Meant { name: name.clone(), table: None }, Privilege::Insert));
                    (Role::Writer, "create or drop tables and views")
                }
                DdlStatement::CreateExternalTable(table) => {
                    self.tables.push((Meant { name: table.name.clone(), table: None }, Privilege::Insert));
                    (Role::Developer, "create external tables")
                }
                DdlStatement::DropCatalogSchema(DropCatalogSchema { name, .. }) => {
                    self.schemas.push(name.clone());
                    (Role::Developer, "drop schemas")
                }
                _ => (Role::Developer, "create or drop schemas, catalogs and functions"),
            },
            LogicalPlan::Statement(PlanStatement::SetVariable(SetVariable { variable, .. }))
            | LogicalPlan::Statement(PlanStatement::ResetVariable(ResetVariable { variable }))
                if variable.to_ascii_lowercase().starts_with("datafusion.runtime") =>
            {
                (Role::Admin, "change settings of the whole server")
            }
            _ => return,
        };
        self.roles.push(role);
    }

    /// Refuses to read or write a table that is not in its place any more: a statement may have been prepared before it
    /// was dropped or replaced, and would go on with the old one.
    pub(crate) fn check_tables(&self, state: &SessionState) -> Result<()> {
        match self.tables.iter().find(|(table, _)| table.is_gone(state)) {
            None => Ok(()),
            Some((gone, _)) => Err(Error::not_found(format!(
                "table '{}' has been dropped or replaced: prepare the statement again",
                gone.name
            ))),
        }
    }

    /// A table whose name means another one where views are read, which is under the defaults that sessions begin with.
    pub(crate) fn unfixed(&self, state: &SessionState) -> Option<&TableReference> {
        let fixed = |table: &Meant| {
            // What functions give has no place.
            if catalog::named(state, &table.name).is_empty() {
                return true;
            }
            let begun = table.name.clone().resolve(catalog::CATALOG, catalog::SCHEMA);
            table.names(state).iter().all(|name| *name == begun)
        };
        self.tables.iter().map(|(table, _)| table).find(|table| !fixed(table)).map(|table| &table.name)
    }

    /// Refuses what the user may not do, where names mean what they mean in this state.
    pub(crate) fn check(&self, user: &User, grants: &Grants, state: &SessionState) -> Result<()> {
        for (role, what) in &self.roles {
            user.needs(*role, what)?;
        }
        for (table, privilege) in &self.tables {
            for name in table.names(state) {
                grants.check(user, &name, *privilege)?;
            }
        }
        for name in self.schemas.iter().flat_map(|schema| catalog::tables_in(state, schema)) {
            grants.check(user, &name, Privilege::Insert)?;
        }
        Ok(())
    }
}

/// A table as a plan has it: its name, and the table that the name was bound to, which may have been under other
/// defaults than those of now (in a view, or before a SET).
#[derive(Debug)]
struct Meant {
    name: TableReference,
    table: Option<Arc<dyn TableProvider>>,
}

impl Meant {
    fn bound(name: &TableReference, source: &Arc<dyn TableSource>) -> Self {
        Self { name: name.clone(), table: source_as_provider(source).ok() }
    }

    /// The whole name of the table; where it is not there any more, all that its name may have meant. What a query makes
    /// for itself has none.
    fn names(&self, state: &SessionState) -> Vec<ResolvedTableReference> {
        let now = resolved(state, self.name.clone());
        let Some(table) = self.table.as_ref().filter(|_| !matches!(self.name, TableReference::Full { .. })) else {
            return vec![now];
        };
        if table.is::<CteWorkTable>() {
            return Vec::new();
        }
        let mut names = catalog::named(state, &self.name);
        match names.iter().position(|name| catalog::is_bound(state, name, table)) {
            Some(found) => vec![names.swap_remove(found)],
            // Made anew at each look: what the server says of itself, and what functions give.
            None if table.is::<StreamingTable>() => vec![now],
            None => {
                names.push(now);
                names
            }
        }
    }

    /// Whether the table stood in a schema of ours, and does not any more. A stream is looked up again when it is opened.
    fn is_gone(&self, state: &SessionState) -> bool {
        let Some(table) = &self.table else { return false };
        if !(table.is::<MemTable>() || table.is::<ListingTable>()) {
            return false;
        }
        let names = catalog::named(state, &self.name);
        names.iter().all(|name| catalog::is_managed(state.catalog_list().as_ref(), name))
            && !names.iter().any(|name| catalog::is_bound(state, name, table))
    }
}
