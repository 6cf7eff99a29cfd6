//! The file of users: a line for each, `name:role:hash`, where the hash is argon2id's in its usual form.
//!
//! The file is read again when it has changed, so that a user who was removed is gone from the next call on.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString, rand_core::OsRng};
use couatl_core::{Error, ErrorKind, Result};
use couatl_datafusion::{Role, User};
use parking_lot::Mutex;

/// Who a server knows, as a file has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users {
    by_name: BTreeMap<Arc<str>, Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    role: Role,
    hash: String,
}

impl Users {
    /// Reads a file. One that is not there has no users.
    ///
    /// # Errors
    /// `invalid-argument` where it cannot be read, or a line of it is none.
    pub fn read(path: &Path) -> Result<Self> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.map_err(|error| failed("read", path, error))?,
        };
        let mut users = Self::default();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let refused = || {
                let (path, line) = (path.display(), index + 1);
                Error::invalid_argument(format!(
                    "line {line} of '{path}' is no user, expected name:role:hash; `couatl user add` writes it"
                ))
            };
            let mut parts = line.splitn(3, ':');
            let (Some(name), Some(role), Some(hash)) = (parts.next(), parts.next(), parts.next()) else {
                return Err(refused());
            };
            PasswordHash::new(hash).map_err(|_| refused())?;
            let role = role.parse().map_err(|_| refused())?;
            users.by_name.insert(name.into(), Entry { role, hash: hash.to_owned() });
        }
        Ok(users)
    }

    /// Writes a file in one step: a new one that only its owner can read, or one that those read who read it before.
    ///
    /// # Errors
    /// `invalid-argument` where it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let lines = self.by_name.iter().map(|(name, Entry { role, hash })| format!("{name}:{role}:{hash}\n"));
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
            file.write_all(lines.collect::<String>().as_bytes())?;
            keep_access(&file, path)?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|error| error.error)?;
            Ok(())
        });
        written.map_err(|error| failed("write", path, error))
    }

    /// Adds a user, or gives one that is there another role and password.
    ///
    /// # Errors
    /// `invalid-argument` for a name or a password that cannot be one.
    pub fn add(&mut self, name: &str, role: Role, password: &str) -> Result<()> {
        if name.is_empty() || name.chars().any(|c| c == ':' || c.is_whitespace() || c.is_control()) {
            return Err(Error::invalid_argument(format!(
                "'{name}' cannot be the name of a user: it must not be empty, and have no blanks and colons"
            )));
        }
        if password.is_empty() {
            return Err(Error::invalid_argument("the password is empty"));
        }
        let salt = SaltString::generate(&mut OsRng);
        let hash = Argon2::default().hash_password(password.as_bytes(), &salt);
        let hash = hash.map_err(|error| Error::internal(format!("cannot hash a password: {error}")))?;
        self.by_name.insert(name.into(), Entry { role, hash: hash.to_string() });
        Ok(())
    }

    /// Removes a user; whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        self.by_name.remove(name).is_some()
    }

    /// All of them, by name.
    pub fn list(&self) -> impl Iterator<Item = User> {
        self.by_name.iter().map(|(name, entry)| User { name: Arc::clone(name), role: entry.role })
    }

    /// What there is of a user's password: another one has another.
    pub(crate) fn hash(&self, name: &str) -> Option<&str> {
        self.by_name.get(name).map(|entry| &*entry.hash)
    }

    /// The user of a name.
    pub(crate) fn get(&self, name: &str) -> Option<User> {
        let (name, entry) = self.by_name.get_key_value(name)?;
        Some(User { name: Arc::clone(name), role: entry.role })
    }

    /// The user of a name and a password. It takes its time, and as long for a name that is none.
    pub(crate) fn verify(&self, name: &str, password: &str) -> Option<User> {
        /// Of a password that nobody has.
        const NOBODY: &str =
            "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IG5vYm9keQ$4mKtFhfv4FtLbwQ7zSWDTmCVUrkf7tfX5kUBuKm6V4o";
        let hash = self.by_name.get(name).map_or(NOBODY, |entry| &entry.hash);
        let hash = PasswordHash::new(hash).ok()?;
        Argon2::default().verify_password(password.as_bytes(), &hash).ok()?;
        self.get(name)
    }
}

/// A file that takes the place of another is read by those who could read that one.
#[cfg(unix)]
fn keep_access(file: &tempfile::NamedTempFile, path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let Ok(before) = fs::metadata(path) else { return Ok(()) };
    file.as_file().set_permissions(before.permissions())?;
    // Only root may give it to others.
    let _ = fchown(file.as_file(), Some(before.uid()), Some(before.gid()));
    Ok(())
}

#[cfg(not(unix))]
fn keep_access(_file: &tempfile::NamedTempFile, _path: &Path) -> std::io::Result<()> {
    Ok(())
}

fn failed(verb: &str, path: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("cannot {verb} '{}': {error}", path.display())).with_source(error)
}

/// The users of a running server.
#[derive(Debug)]
pub(crate) struct UserFile {
    path: PathBuf,
    read: Mutex<(Option<SystemTime>, Arc<Users>)>,
}

impl UserFile {
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        let changed = modified(&path);
        let users = Arc::new(Users::read(&path)?);
        Ok(Self { path, read: Mutex::new((changed, users)) })
    }

    /// The users, as the file has them now. One that cannot be read leaves those that were known.
    pub(crate) fn current(&self) -> Arc<Users> {
        let mut read = self.read.lock();
        let changed = modified(&self.path);
        if changed != read.0 {
            match Users::read(&self.path) {
                Ok(users) => *read = (changed, Arc::new(users)),
                Err(error) => tracing::error!(%error, "the users are those of before"),
            }
        }
        Arc::clone(&read.1)
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_written_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let mut users = Users::read(&path).unwrap();
        users.add("ann", Role::Admin, "secret:ü").unwrap();
        users.add("bob", Role::Reader, "other").unwrap();
        users.write(&path).unwrap();
        assert_eq!(Users::read(&path).unwrap(), users);
        assert!(!fs::read_to_string(&path).unwrap().contains("secret"));
        let ann = users.verify("ann", "secret:ü").unwrap();
        assert_eq!((&*ann.name, ann.role), ("ann", Role::Admin));
        for (name, password) in [("ann", "other"), ("bob", ""), ("eve", "secret:ü"), ("", "")] {
            assert_eq!(users.verify(name, password), None, "{name}");
        }
        assert!(users.remove("bob") && !users.remove("bob"));
        assert_eq!(users.list().count(), 1);
    }

    #[test]
    fn a_hash_of_nobody_takes_as_long() {
        assert!(
            PasswordHash::new(
                "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IG5vYm9keQ$4mKtFhfv4FtLbwQ7zSWDTmCVUrkf7tfX5kUBuKm6V4o"
            )
            .is_ok()
        );
    }

    #[test]
    fn what_is_no_user_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        for line in
            ["ann", "ann:admin", "ann:king:$argon2id$v=19$m=1,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2g", "ann:admin:plain"]
        {
            fs::write(&path, format!("\n{line}\n")).unwrap();
            let error = Users::read(&path).unwrap_err().to_string();
            assert!(error.starts_with("line 2 of '") && error.contains("couatl user add"), "{error}");
        }
        let mut users = Users::default();
        for name in ["", "a b", "a:b", "a\n"] {
            assert_eq!(users.add(name, Role::Reader, "x").unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
        assert_eq!(users.add("ann", Role::Reader, "").unwrap_err().to_string(), "the password is empty");
    }

    #[test]
    fn a_file_that_changes_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        let mut users = Users::default();
        users.add("ann", Role::Reader, "x").unwrap();
        users.write(&path).unwrap();
        let file = UserFile::open(path.clone()).unwrap();
        assert!(file.current().get("ann").is_some());
        fs::remove_file(&path).unwrap();
        assert!(file.current().get("ann").is_none());
        fs::write(&path, "garbage").unwrap();
        assert!(file.current().get("ann").is_none());
        users.write(&path).unwrap();
        assert!(file.current().get("ann").is_some());
    }
}
