//! Who asks: a user, or the Python of a stream, which a query of some user runs.
//!
//! Python may ask the server that it runs on, with credentials that are good for as long as its query runs. What it may
//! do is what all may do who stand behind it: the user whose query it is, and those who created the stream; and where
//! that query was itself asked for by Python, those behind it, too.

use std::sync::Arc;

use crate::access::User;

/// How many queries may run inside each other, each made by the Python of a stream that the one before reads.
pub(crate) const MAX_DEPTH: u32 = 8;

/// How many queries that Python asks for may run at once for one query that nobody's Python has asked for.
pub(crate) const MAX_ASKED: usize = 64;

/// Whoever asks. The default is nobody in particular, who may do everything.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    user: Option<User>,
    origin: Option<Arc<Origin>>,
}

/// The query whose Python asks.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) query_id: String,
    /// The query of the one that nobody's Python has asked for.
    pub(crate) root: String,
    depth: u32,
    creators: Vec<User>,
}

impl Caller {
    /// A user.
    pub fn user(user: User) -> Self {
        Self { user: Some(user), origin: None }
    }

    /// The Python of a stream of these creators, in a query of this one. Everybody is looked up by name again, and must
    /// still be there.
    pub(crate) fn python(
        &self,
        query_id: &str,
        creators: &[Arc<str>],
        find: impl Fn(&str) -> Option<User>,
    ) -> Option<Self> {
        let before = self.origin.iter().flat_map(|origin| &origin.creators).map(|creator| &creator.name);
        let mut names: Vec<_> = before.chain(creators).collect();
        names.sort();
        names.dedup();
        let user = match self.name() {
            Some(name) => Some(find(name)?),
            None => None,
        };
        let origin = Origin {
            query_id: query_id.to_owned(),
            root: self.origin.as_ref().map_or(query_id, |origin| &origin.root).to_owned(),
            depth: self.depth() + 1,
            creators: names.into_iter().map(|name| find(name)).collect::<Option<_>>()?,
        };
        Some(Self { user, origin: Some(Arc::new(origin)) })
    }

    /// By which a server knows the user whose query it is.
    pub fn name(&self) -> Option<&Arc<str>> {
        self.user.as_ref().map(|user| &user.name)
    }

    /// The query whose Python asks.
    pub(crate) fn origin(&self) -> Option<&Origin> {
        self.origin.as_deref()
    }

    /// All who must be allowed what they ask for.
    pub(crate) fn principals(&self) -> impl Iterator<Item = &User> {
        self.user.iter().chain(self.origin.iter().flat_map(|origin| &origin.creators))
    }

    /// Their names: what is created is theirs.
    pub(crate) fn names(&self) -> impl Iterator<Item = Arc<str>> {
        self.principals().map(|user| Arc::clone(&user.name))
    }

    /// How many queries theirs run inside of.
    pub fn depth(&self) -> u32 {
        self.origin.as_ref().map_or(0, |origin| origin.depth)
    }

    /// Whether both are the same, whatever the roles of users are now.
    pub fn is_same(&self, other: &Self) -> bool {
        let who = |caller: &Self| {
            let query = caller.origin.as_ref().map(|origin| origin.query_id.clone());
            (query, caller.names().collect::<Vec<_>>())
        };
        self.name() == other.name() && who(self) == who(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Role;

    #[test]
    fn all_who_stand_behind_a_query_stay_behind_what_it_asks_for() {
        let find = |name: &str| (name != "gone").then(|| User { name: Arc::from(name), role: Role::Developer });
        let ann = Caller::user(find("ann").unwrap());
        let first = ann.python("1", &[Arc::from("dora")], find).unwrap();
        let second = first.python("2", &[Arc::from("adam"), Arc::from("dora")], find).unwrap();
        let names: Vec<_> = second.principals().map(|user| &*user.name).collect();
        assert_eq!(names, ["ann", "adam", "dora"]);
        assert_eq!((second.depth(), second.origin().map(|origin| &*origin.root)), (2, Some("1")));
        assert!(first.python("2", &[Arc::from("gone")], find).is_none());
        assert!(second.is_same(&second.clone()) && !second.is_same(&first) && !first.is_same(&ann));
    }
}
