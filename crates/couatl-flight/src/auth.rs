//! Authentication: from the header of a call to the user who makes it.
//!
//! A password is looked at once, and answered with a token; the token is what the calls after it bring. Tokens are
//! signed with a key that the server makes when it starts, and say a name and a time alone: what their user may do is
//! asked of the users' file at each call.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use couatl_core::{Error, ErrorKind, Result};
use couatl_datafusion::{Caller, Directory, Queries, User};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use crate::users::{UserFile, Users};

/// Drivers write base64 with padding and without.
const BASIC: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How long a token is good for.
const TOKEN_LIFE: Duration = Duration::from_secs(60 * 60);

/// How many passwords are looked at side by side: each takes 19 MiB, and a core.
const PASSWORDS_AT_ONCE: usize = 2;

/// How long the answer to a wrong password takes at first; each further one for the same name from the same address takes
/// twice as long.
const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(8);

/// How many attempts for one name from one address may wait for each other.
const MOST_ATTEMPTS: usize = 8;

/// For how many names and addresses failures are counted.
const MOST_FAILURES: usize = 10_000;

/// How long a password that was right needs not be looked at again.
const REMEMBERED: Duration = Duration::from_secs(5 * 60);

/// How much of a name is logged.
const LOGGED_CHARS: usize = 64;

/// What the header of a call says of who makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    Password { user: String, password: String },
    Token(String),
}

impl Credentials {
    /// Reads the header, if there is one.
    fn read(headers: &HeaderMap) -> Result<Option<Self>> {
        let Some(header) = headers.get(AUTHORIZATION) else { return Ok(None) };
        let unreadable = || denied("the authorization header cannot be read: it is Basic or Bearer");
        let (scheme, credentials) =
            header.to_str().ok().and_then(|header| header.split_once(' ')).ok_or_else(unreadable)?;
        let credentials = credentials.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Ok(Some(Self::Token(credentials.to_owned())));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(unreadable());
        }
        let decoded = BASIC.decode(credentials).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let parts = decoded.as_deref().and_then(|text| text.split_once(':'));
        let (user, password) = parts.ok_or_else(unreadable)?;
        Ok(Some(Self::Password { user: user.to_owned(), password: password.to_owned() }))
    }

    /// Logs that they were refused. The name is whatever somebody sent, so that it is escaped and shortened.
    fn log_refusal(&self, peer: Option<IpAddr>, error: &Error) {
        let user = match self {
            Self::Password { user, .. } => Some(user.chars().take(LOGGED_CHARS).collect::<String>()),
            Self::Token(_) => None,
        };
        let (user, peer) = (user.as_ref().map(tracing::field::debug), peer.map(tracing::field::display));
        tracing::warn!(user, peer, %error, "a login failed");
    }
}

/// Who may come in: the users, where there are any, and the Python of queries that run.
#[derive(Debug, Clone)]
pub(crate) struct Callers {
    authenticator: Option<Arc<Authenticator>>,
    queries: Arc<Queries>,
}

impl Callers {
    pub(crate) fn new(authenticator: Option<Arc<Authenticator>>, queries: Arc<Queries>) -> Self {
        Self { authenticator, queries }
    }

    /// Whether everybody may come in.
    pub(crate) fn are_all_welcome(&self) -> bool {
        self.authenticator.is_none()
    }

    /// Who a call with these headers is from, and the token with which their next one may come. Who brings a password
    /// looks for one, also where nobody has to log in.
    pub(crate) async fn identify(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Result<(Caller, Option<String>)> {
        let credentials = match Credentials::read(headers) {
            Err(_) if self.are_all_welcome() => None,
            read => read?,
        };
        if let Some(found) = self.python(credentials.as_ref()) {
            return Ok(found);
        }
        match &self.authenticator {
            Some(authenticator) => {
                let found = authenticator.identify(credentials.as_ref(), peer).await;
                if let (Err(error), Some(credentials)) = (&found, &credentials) {
                    credentials.log_refusal(peer, error);
                }
                let (user, token) = found?;
                Ok((Caller::user(user), token))
            }
            None => {
                let token = matches!(credentials, Some(Credentials::Password { .. })).then(|| "everybody".to_owned());
                Ok((Caller::default(), token))
            }
        }
    }

    /// The Python of a query that runs. Its token is its name and its password.
    fn python(&self, credentials: Option<&Credentials>) -> Option<(Caller, Option<String>)> {
        let find = |name: &str| self.authenticator.as_ref()?.users.current().get(name);
        match credentials? {
            Credentials::Password { user, password } => {
                let caller = self.queries.caller(user, password, find)?;
                Some((caller, Some(format!("{user}.{password}"))))
            }
            Credentials::Token(token) => {
                let (user, password) = token.split_once('.')?;
                Some((self.queries.caller(user, password, find)?, None))
            }
        }
    }
}

/// Who tries to log in: from which network, and as whom.
type Claim = (Option<IpAddr>, String);

/// Who has one address of IPv6 most often has all that begin with the same half; one of IPv4 may be written as either.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

/// Where the attempts for a name from all addresses wait for each other.
#[derive(Debug, Default)]
struct Turns {
    /// Those from addresses that have failed before, for as long as a failure takes: many guess no faster than one.
    guesses: AsyncMutex<()>,
    /// All of them, for as long as a password takes: who has not failed waits for no guess but the one that is looked at.
    passwords: AsyncMutex<()>,
}

/// What all who hold a key share; it is forgotten with the last of them.
#[derive(Debug, Default)]
struct Shared<K, V>(Mutex<HashMap<K, Arc<V>>>);

impl<K: Eq + Hash, V: Default> Shared<K, V> {
    fn hold(&self, key: K) -> Arc<V> {
        let mut shared = self.0.lock();
        shared.retain(|_, value| Arc::strong_count(value) > 1);
        Arc::clone(shared.entry(key).or_default())
    }

    fn is_held(&self, key: &K) -> bool {
        self.0.lock().get(key).is_some_and(|value| Arc::strong_count(value) > 1)
    }
}

/// Decides which user a call is from.
#[derive(Debug)]
pub struct Authenticator {
    users: UserFile,
    key: hmac::Key,
    passwords: Arc<Semaphore>,
    /// How often in a row, and until when it counts.
    failures: Mutex<HashMap<Claim, (u32, Instant)>>,
    /// Where attempts for a name from one address wait for each other.
    attempts: Shared<Claim, AsyncMutex<()>>,
    turns: Shared<String, Turns>,
    /// The signature of a name and a password that was right, and until when.
    remembered: Mutex<HashMap<String, (Vec<u8>, Instant)>>,
}

impl Authenticator {
    /// Of the users in a file.
    ///
    /// # Errors
    /// `invalid-argument` where the file cannot be read.
    pub fn new(users: impl Into<PathBuf>) -> Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let users = UserFile::open(users.into())?;
        if users.current().list().next().is_none() {
            tracing::warn!("the file of users has none: nobody can log in before `couatl user add`");
        }
        Ok(Self {
            users,
            key: key.map_err(|_| Error::internal("the system gives no random numbers"))?,
            passwords: Arc::new(Semaphore::new(PASSWORDS_AT_ONCE)),
            failures: Mutex::default(),
            attempts: Shared::default(),
            turns: Shared::default(),
            remembered: Mutex::default(),
        })
    }

    /// The user of these credentials, and the token to give them.
    async fn identify(
        self: &Arc<Self>,
        credentials: Option<&Credentials>,
        peer: Option<IpAddr>,
    ) -> Result<(User, Option<String>)> {
        match credentials {
            None => Err(denied("who are you? send a user and a password, or a token")),
            Some(Credentials::Token(token)) => {
                let (user, life) =
                    self.token_user(token).ok_or_else(|| denied("the token is not valid, or no more: log in again"))?;
                let token = (life < TOKEN_LIFE / 2).then(|| self.token(&user));
                Ok((user, token))
            }
            Some(Credentials::Password { user, password }) => {
                let user = self.log_in(peer, user, password).await?;
                let token = Some(self.token(&user));
                Ok((user, token))
            }
        }
    }

    /// The user of a name and a password, or of a token in its place.
    async fn log_in(self: &Arc<Self>, peer: Option<IpAddr>, name: &str, password: &str) -> Result<User> {
        if let Some((user, _)) = self.token_user(password).filter(|(user, _)| &*user.name == name) {
            return Ok(user);
        }
        let users = self.users.current();
        let signature =
            self.sign(&format!("{name}:{password}"), users.hash(name).unwrap_or_default()).as_ref().to_vec();
        let claim = (peer.map(network), name.to_owned());
        // Where others wait or have failed, the right password is answered no sooner than a wrong one.
        if !self.attempts.is_held(&claim)
            && self.delay(&claim).is_zero()
            && let Some(user) = self.remembered(&users, name, &signature)
        {
            return Ok(user);
        }
        // One after the other, and after a failure not before its time: who hangs up has learned nothing.
        let attempts = self.attempts.hold(claim.clone());
        // The map holds one, too.
        if Arc::strong_count(&attempts) > MOST_ATTEMPTS + 1 {
            return Err(denied("too many attempts at once: try again later"));
        }
        let _attempt = attempts.lock().await;
        let delay = self.delay(&claim);
        if delay.is_zero()
            && let Some(user) = self.remembered(&users, name, &signature)
        {
            return Ok(user);
        }
        let turns = self.turns.hold(name.to_owned());
        let _guess = if delay.is_zero() {
            None
        } else {
            tokio::time::sleep(delay.saturating_sub(FIRST_DELAY)).await;
            let guess = turns.guesses.lock().await;
            tokio::time::sleep(FIRST_DELAY).await;
            Some(guess)
        };
        let found = {
            let _turn = turns.passwords.lock().await;
            let permit = Arc::clone(&self.passwords).acquire_owned().await;
            let (name, password) = (name.to_owned(), password.to_owned());
            let looking = move || {
                // Who hangs up does not end this.
                let _permit = permit;
                users.verify(&name, &password)
            };
            tokio::task::spawn_blocking(looking).await
        };
        match found.map_err(|error| Error::internal(error.to_string()))? {
            Some(user) => {
                self.failures.lock().remove(&claim);
                self.remembered.lock().insert(name.to_owned(), (signature, Instant::now() + REMEMBERED));
                Ok(user)
            }
            None => {
                self.failed(claim);
                // The first of them is told late; those after it have waited.
                tokio::time::sleep(FIRST_DELAY.saturating_sub(delay)).await;
                Err(denied("wrong user or password"))
            }
        }
    }

    /// The user whose password was right not long ago.
    fn remembered(&self, users: &Users, name: &str, signature: &[u8]) -> Option<User> {
        let remembered = self.remembered.lock();
        let (known, until) = remembered.get(name)?;
        if known != signature || Instant::now() >= *until {
            return None;
        }
        users.get(name)
    }

    /// How long the next attempt waits; it does where one has failed.
    fn delay(&self, claim: &Claim) -> Duration {
        match self.failures.lock().get(claim) {
            Some((count, until)) if Instant::now() < *until => {
                LONGEST_DELAY.min(FIRST_DELAY * 2_u32.saturating_pow((*count).min(10)))
            }
            _ => Duration::ZERO,
        }
    }

    /// Counts a failure, in the place of the one that is the next to be forgotten where there are too many.
    fn failed(&self, claim: Claim) {
        let now = Instant::now();
        let mut failures = self.failures.lock();
        if failures.len() >= MOST_FAILURES && !failures.contains_key(&claim) {
            let oldest = failures.iter().min_by_key(|(_, (_, until))| *until).map(|(claim, _)| claim.clone());
            if let Some(oldest) = oldest {
                failures.remove(&oldest);
            }
        }
        let (count, until) = failures.entry(claim).or_insert((0, now));
        *count = if now < *until { *count + 1 } else { 1 };
        *until = now + Duration::from_secs(60);
    }

    /// What is said, signed for as long as the user's password is what it is.
    fn sign(&self, said: &str, hash: &str) -> hmac::Tag {
        hmac::sign(&self.key, signed(said, hash).as_bytes())
    }

    /// A token for a user.
    fn token(&self, user: &User) -> String {
        self.token_until(user, SystemTime::now() + TOKEN_LIFE)
    }

    /// A token, `name.expiry.signature`.
    fn token_until(&self, user: &User, expiry: SystemTime) -> String {
        let expiry = expiry.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let said = format!("{}.{expiry}", BASE64_URL_SAFE_NO_PAD.encode(&*user.name));
        let signature = self.sign(&said, self.users.current().hash(&user.name).unwrap_or_default());
        format!("{said}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// The user of a token, and for how long it is still good.
    fn token_user(&self, token: &str) -> Option<(User, Duration)> {
        let (said, signature) = token.rsplit_once('.')?;
        let (name, expiry) = said.split_once('.')?;
        let name = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(name).ok()?).ok()?;
        let users = self.users.current();
        let signed = signed(said, users.hash(&name)?);
        hmac::verify(&self.key, signed.as_bytes(), &BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        let expiry = UNIX_EPOCH + Duration::from_secs(expiry.parse().ok()?);
        let life = expiry.duration_since(SystemTime::now()).ok()?;
        Some((users.get(&name)?, life))
    }
}

/// The header in which a token goes.
pub(crate) fn bearer(token: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("Bearer {token}")).ok()
}

/// What a signature is made of.
fn signed(said: &str, hash: &str) -> String {
    format!("{said}\n{hash}")
}

impl Directory for Authenticator {
    fn knows(&self, user: &str) -> bool {
        self.users.current().get(user).is_some()
    }

    fn replaced(&self) -> Vec<Arc<str>> {
        self.users.replaced()
    }
}

fn denied(message: &str) -> Error {
    Error::new(ErrorKind::Unauthenticated, message)
}

#[cfg(test)]
mod tests {
    use couatl_datafusion::Role;
    use futures::FutureExt;

    use super::*;

    fn authenticator() -> (Arc<Authenticator>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let mut users = Users::default();
        users.add("ann", Role::Writer, "secret").unwrap();
        users.write(&folder.path().join("users")).unwrap();
        (Arc::new(Authenticator::new(folder.path().join("users")).unwrap()), folder)
    }

    async fn identify(authenticator: &Arc<Authenticator>, header: &str) -> Result<(User, Option<String>)> {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, header.parse().unwrap())]);
        authenticator.identify(Credentials::read(&headers)?.as_ref(), None).await
    }

    /// How the password of ann, or a wrong one, is answered at an address, and after how many tenths of a second.
    async fn log_in(authenticator: &Arc<Authenticator>, peer: &str, password: &str) -> (Result<User>, u128) {
        let before = tokio::time::Instant::now();
        let found = authenticator.log_in(Some(peer.parse().unwrap()), "ann", password).await;
        (found, before.elapsed().as_millis() / 100)
    }

    #[tokio::test]
    async fn a_password_gives_a_token_and_a_token_is_a_password() {
        let (authenticator, _folder) = authenticator();
        // With padding and without.
        for basic in ["Basic YW5uOnNlY3JldA==", "basic YW5uOnNlY3JldA"] {
            let (ann, token) = identify(&authenticator, basic).await.unwrap();
            assert_eq!((&*ann.name, ann.role), ("ann", Role::Writer));
            let token = token.unwrap();
            let (again, renewed) = identify(&authenticator, &format!("Bearer {token}")).await.unwrap();
            assert_eq!(again, ann);
            assert_eq!(renewed, None, "a young token is not renewed");
            let basic = BASIC.encode(format!("ann:{token}"));
            assert_eq!(identify(&authenticator, &format!("Basic {basic}")).await.unwrap().0, ann);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_wrong_is_refused_and_says_nothing_and_takes_longer() {
        let (authenticator, folder) = authenticator();
        let mut delays = Vec::new();
        for name in ["ann", "ann", "ann", "eve"] {
            let before = tokio::time::Instant::now();
            let basic = BASIC.encode(format!("{name}:wrong"));
            let error = identify(&authenticator, &format!("Basic {basic}")).await.unwrap_err();
            assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::Unauthenticated, "wrong user or password"));
            delays.push(before.elapsed().as_millis() / 100);
        }
        assert_eq!(delays, [5, 10, 20, 5]);
        let ann = authenticator.users.current().get("ann").unwrap();
        let token = authenticator.token(&ann);
        let mut forged = token.clone();
        forged.pop();
        for wrong in ["Bearer ", "Bearer a.b", &format!("Bearer {forged}"), "Basic !", "Digest x", "x"] {
            let error = identify(&authenticator, wrong).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{wrong}");
        }
        assert!(authenticator.identify(None, None).await.is_err());
        let old = authenticator.token_until(&ann, SystemTime::now() - Duration::from_secs(1));
        assert!(identify(&authenticator, &format!("Bearer {old}")).await.is_err());
        std::fs::remove_file(folder.path().join("users")).unwrap();
        assert!(identify(&authenticator, &format!("Bearer {token}")).await.is_err(), "a removed user is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn who_guesses_is_not_told_sooner_because_the_user_is_known() {
        let (authenticator, _folder) = authenticator();
        let (guesser, home) = ("192.0.2.1", "192.0.2.2");
        assert!(matches!(log_in(&authenticator, home, "secret").await, (Ok(_), 0)));
        assert!(matches!(log_in(&authenticator, guesser, "secret").await, (Ok(_), 0)));
        assert!(matches!(log_in(&authenticator, guesser, "wrong").await, (Err(_), 5)));
        assert!(matches!(log_in(&authenticator, home, "secret").await, (Ok(_), 0)));
        assert!(matches!(log_in(&authenticator, guesser, "secret").await, (Ok(_), 10)));
        assert!(matches!(log_in(&authenticator, guesser, "secret").await, (Ok(_), 0)));
        // One that is not answered yet counts, too.
        let mut wrong = log_in(&authenticator, guesser, "wrong").boxed();
        assert!(futures::poll!(&mut wrong).is_pending());
        assert!(futures::poll!(log_in(&authenticator, guesser, "secret").boxed()).is_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn who_guesses_keeps_nobody_out_elsewhere() {
        let (authenticator, _folder) = authenticator();
        let (guesser, home) = ("192.0.2.1", "192.0.2.2");
        assert!(log_in(&authenticator, guesser, "wrong").await.0.is_err());
        let mut guesses: Vec<_> =
            (0..MOST_ATTEMPTS).map(|_| log_in(&authenticator, guesser, "wrong").boxed()).collect();
        for guess in &mut guesses {
            assert!(futures::poll!(guess).is_pending());
        }
        let (refused, _) = log_in(&authenticator, guesser, "secret").await;
        assert_eq!(refused.unwrap_err().to_string(), "too many attempts at once: try again later");
        assert!(matches!(log_in(&authenticator, home, "secret").await, (Ok(_), 0)));
    }

    #[tokio::test(start_paused = true)]
    async fn many_addresses_guess_a_name_no_faster_than_one() {
        let (authenticator, _folder) = authenticator();
        let guess = async || {
            let guesses = ["192.0.2.1", "192.0.2.2", "2001:db8:0:1::1", "2001:db8:0:2::1"];
            let guesses = guesses.map(|peer| log_in(&authenticator, peer, "wrong"));
            futures::future::join_all(guesses).await.into_iter().map(|(_, tenths)| tenths).collect::<Vec<_>>()
        };
        assert_eq!(guess().await, [5, 5, 5, 5]);
        let mut second = guess().await;
        second.sort_unstable();
        assert_eq!(second, [10, 15, 20, 25]);
    }

    #[test]
    fn addresses_of_one_network_are_one() {
        for (peer, expected) in
            [("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::")]
        {
            assert_eq!(network(peer.parse().unwrap()), expected.parse::<IpAddr>().unwrap(), "{peer}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_password_ends_the_old_one_and_its_tokens() {
        let (authenticator, folder) = authenticator();
        let basic = |password: &str| format!("Basic {}", BASIC.encode(format!("ann:{password}")));
        let (_, token) = identify(&authenticator, &basic("secret")).await.unwrap();
        let mut users = Users::default();
        users.add("ann", Role::Writer, "other").unwrap();
        users.write(&folder.path().join("users")).unwrap();
        assert!(identify(&authenticator, &basic("secret")).await.is_err());
        assert!(identify(&authenticator, &format!("Bearer {}", token.unwrap())).await.is_err());
        assert!(identify(&authenticator, &basic("other")).await.is_ok());
    }
}
