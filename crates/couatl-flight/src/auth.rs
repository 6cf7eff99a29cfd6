//! Authentication: from the header of a call to the user who makes it.
//!
//! A password is looked at once, and answered with a token; the token is what the calls after it bring. Tokens are
//! signed with a key that the server makes when it starts, and say a name and a time alone: what their user may do is
//! asked of the users' file at each call.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use couatl_core::{Error, ErrorKind, Result};
use couatl_datafusion::User;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use parking_lot::Mutex;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;

use crate::users::UserFile;

/// Drivers write base64 with padding and without.
const BASIC: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How long a token is good for.
const TOKEN_LIFE: Duration = Duration::from_secs(60 * 60);

/// How many passwords are looked at side by side: each takes 19 MiB, and a core.
const PASSWORDS_AT_ONCE: usize = 2;

/// How long the answer to a wrong password takes at first; each further one for the same name takes twice as long.
const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(8);

/// For how many names failures are counted.
const MOST_FAILURES: usize = 10_000;

/// How long a password that was right needs not be looked at again.
const REMEMBERED: Duration = Duration::from_secs(5 * 60);

/// Decides who a call is from.
#[derive(Debug)]
pub struct Authenticator {
    users: UserFile,
    key: hmac::Key,
    passwords: Semaphore,
    /// How often in a row, and until when it counts.
    failures: Mutex<HashMap<String, (u32, Instant)>>,
    /// The signature of a name and a password that was right, and until when.
    remembered: Mutex<HashMap<String, (Vec<u8>, Instant)>>,
}

/// Who a call is from, and the token to give them.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) user: User,
    pub(crate) token: Option<String>,
}

impl Authenticator {
    /// Of the users in a file.
    ///
    /// # Errors
    /// `invalid-argument` where the file cannot be read.
    pub fn new(users: impl Into<PathBuf>) -> Result<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        Ok(Self {
            users: UserFile::open(users.into())?,
            key: key.map_err(|_| Error::internal("the system gives no random numbers"))?,
            passwords: Semaphore::new(PASSWORDS_AT_ONCE),
            failures: Mutex::default(),
            remembered: Mutex::default(),
        })
    }

    /// Who a call with these headers is from.
    pub(crate) async fn identify(self: &Arc<Self>, headers: &HeaderMap) -> Result<Identity> {
        let header = headers.get(AUTHORIZATION).and_then(|header| header.to_str().ok());
        let Some((scheme, credentials)) = header.and_then(|header| header.split_once(' ')) else {
            return Err(denied("who are you? send a user and a password, or a token"));
        };
        match scheme {
            _ if scheme.eq_ignore_ascii_case("bearer") => {
                let (user, life) = self
                    .token_user(credentials.trim())
                    .ok_or_else(|| denied("the token is not valid, or no more: log in again"))?;
                let token = (life < TOKEN_LIFE / 2).then(|| self.token(&user));
                Ok(Identity { user, token })
            }
            _ if scheme.eq_ignore_ascii_case("basic") => {
                let decoded = BASIC.decode(credentials.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                let Some((name, password)) = decoded.as_deref().and_then(|text| text.split_once(':')) else {
                    return Err(denied("the authorization header cannot be read"));
                };
                let user = self.log_in(name, password).await?;
                let token = Some(self.token(&user));
                Ok(Identity { user, token })
            }
            _ => Err(denied("authorization is Basic or Bearer")),
        }
    }

    /// The user of a name and a password, or of a token in its place.
    async fn log_in(self: &Arc<Self>, name: &str, password: &str) -> Result<User> {
        if let Some((user, _)) = self.token_user(password).filter(|(user, _)| &*user.name == name) {
            return Ok(user);
        }
        let signature = hmac::sign(&self.key, format!("{name}:{password}").as_bytes()).as_ref().to_vec();
        let remembered = self.remembered.lock().get(name).cloned();
        if remembered.is_some_and(|(known, until)| known == signature && Instant::now() < until)
            && let Some(user) = self.users.current().get(name)
        {
            return Ok(user);
        }
        let found = {
            let _permit = self.passwords.acquire().await;
            let users = self.users.current();
            let (name, password) = (name.to_owned(), password.to_owned());
            tokio::task::spawn_blocking(move || users.verify(&name, &password)).await
        };
        match found.map_err(|error| Error::internal(error.to_string()))? {
            Some(user) => {
                self.failures.lock().remove(name);
                self.remembered.lock().insert(name.to_owned(), (signature, Instant::now() + REMEMBERED));
                Ok(user)
            }
            None => {
                tokio::time::sleep(self.failed(name)).await;
                Err(denied("wrong user or password"))
            }
        }
    }

    /// How long the answer to this failure takes.
    fn failed(&self, name: &str) -> Duration {
        let now = Instant::now();
        let mut failures = self.failures.lock();
        if failures.len() >= MOST_FAILURES {
            failures.retain(|_, (_, until)| now < *until);
        }
        if failures.len() >= MOST_FAILURES {
            return LONGEST_DELAY;
        }
        let (count, until) = failures.entry(name.to_owned()).or_insert((0, now));
        *count = if now < *until { *count + 1 } else { 1 };
        *until = now + Duration::from_secs(60);
        LONGEST_DELAY.min(FIRST_DELAY * 2_u32.saturating_pow((*count - 1).min(10)))
    }

    /// A token for a user, `name.expiry.signature`.
    fn token(&self, user: &User) -> String {
        let expiry = (SystemTime::now() + TOKEN_LIFE).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let said = format!("{}.{expiry}", BASE64_URL_SAFE_NO_PAD.encode(&*user.name));
        let signature = hmac::sign(&self.key, said.as_bytes());
        format!("{said}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// The user of a token, and for how long it is still good.
    fn token_user(&self, token: &str) -> Option<(User, Duration)> {
        let (said, signature) = token.rsplit_once('.')?;
        hmac::verify(&self.key, said.as_bytes(), &BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        let (name, expiry) = said.split_once('.')?;
        let expiry = UNIX_EPOCH + Duration::from_secs(expiry.parse().ok()?);
        let life = expiry.duration_since(SystemTime::now()).ok()?;
        let name = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(name).ok()?).ok()?;
        Some((self.users.current().get(&name)?, life))
    }
}

fn denied(message: &str) -> Error {
    Error::new(ErrorKind::Unauthenticated, message)
}

#[cfg(test)]
mod tests {
    use couatl_datafusion::Role;

    use super::*;
    use crate::users::Users;

    fn authenticator() -> (Arc<Authenticator>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let mut users = Users::default();
        users.add("ann", Role::Writer, "secret").unwrap();
        users.write(&folder.path().join("users")).unwrap();
        (Arc::new(Authenticator::new(folder.path().join("users")).unwrap()), folder)
    }

    fn header(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, text.parse().unwrap())])
    }

    #[tokio::test]
    async fn a_password_gives_a_token_and_a_token_is_a_password() {
        let (authenticator, _folder) = authenticator();
        // With padding and without.
        for basic in ["Basic YW5uOnNlY3JldA==", "basic YW5uOnNlY3JldA"] {
            let ann = authenticator.identify(&header(basic)).await.unwrap();
            assert_eq!((&*ann.user.name, ann.user.role), ("ann", Role::Writer));
            let token = ann.token.unwrap();
            let again = authenticator.identify(&header(&format!("Bearer {token}"))).await.unwrap();
            assert_eq!(again.user, ann.user);
            assert_eq!(again.token, None, "a young token is not renewed");
            let basic = BASIC.encode(format!("ann:{token}"));
            assert_eq!(authenticator.identify(&header(&format!("Basic {basic}"))).await.unwrap().user, ann.user);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_wrong_is_refused_and_says_nothing_and_takes_longer() {
        let (authenticator, folder) = authenticator();
        let mut delays = Vec::new();
        for name in ["ann", "ann", "ann", "eve"] {
            let before = tokio::time::Instant::now();
            let basic = BASIC.encode(format!("{name}:wrong"));
            let error = authenticator.identify(&header(&format!("Basic {basic}"))).await.unwrap_err();
            assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::Unauthenticated, "wrong user or password"));
            delays.push(before.elapsed().as_millis() / 100);
        }
        assert_eq!(delays, [5, 10, 20, 5]);
        let ann = authenticator.users.current().get("ann").unwrap();
        let token = authenticator.token(&ann);
        let mut forged = token.clone();
        forged.pop();
        for wrong in ["Bearer ", "Bearer a.b", &format!("Bearer {forged}"), "Basic !", "Digest x", "x"] {
            let error = authenticator.identify(&header(wrong)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{wrong}");
        }
        assert!(authenticator.identify(&HeaderMap::new()).await.is_err());
        std::fs::remove_file(folder.path().join("users")).unwrap();
        assert!(authenticator.identify(&header(&format!("Bearer {token}"))).await.is_err(), "a removed user is gone");
    }
}
