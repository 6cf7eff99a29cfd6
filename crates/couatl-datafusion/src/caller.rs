//! Who asks: a user, or the Python of a stream, which a query of some user runs.
//!
//! Python may ask the server that it runs on, with credentials that are good for as long as its query runs. What it may
//! do is what both may: the user whose query it is, and the one who created the stream.

use std::sync::Arc;

use crate::access::User;

/// How many queries may run inside each other, each made by the Python of a stream that the one before reads.
pub(crate) const MAX_DEPTH: u32 = 8;

/// Whoever asks. The default is nobody in particular, who may do everything.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    user: Option<User>,
    origin: Option<Arc<Origin>>,
}

/// The query whose Python asks.
#[derive(Debug)]
struct Origin {
    query_id: String,
    depth: u32,
    creator: Option<User>,
}

impl Caller {
    /// A user.
    pub fn user(user: User) -> Self {
        Self { user: Some(user), origin: None }
    }

    /// The Python of a stream, in a query that is itself so deep inside others.
    pub(crate) fn python(user: Option<User>, creator: Option<User>, query_id: &str, depth: u32) -> Self {
        let origin = Origin { query_id: query_id.to_owned(), depth: depth + 1, creator };
        Self { user, origin: Some(Arc::new(origin)) }
    }

    /// Whose queries they are.
    pub fn as_user(&self) -> Option<&User> {
        self.user.as_ref()
    }

    /// By which a server knows the user.
    pub(crate) fn name(&self) -> Option<&Arc<str>> {
        self.user.as_ref().map(|user| &user.name)
    }

    /// All who must be allowed what they ask for.
    pub(crate) fn principals(&self) -> impl Iterator<Item = &User> {
        self.user.iter().chain(self.origin.iter().filter_map(|origin| origin.creator.as_ref()))
    }

    /// How many queries theirs run inside of.
    pub(crate) fn depth(&self) -> u32 {
        self.origin.as_ref().map_or(0, |origin| origin.depth)
    }

    /// Whether both are the same, whatever the roles of users are now.
    pub fn is_same(&self, other: &Self) -> bool {
        let origin = |caller: &Self| {
            let origin = caller.origin.as_ref()?;
            Some((origin.query_id.clone(), origin.creator.as_ref().map(|creator| Arc::clone(&creator.name))))
        };
        self.name() == other.name() && origin(self) == origin(other)
    }
}
