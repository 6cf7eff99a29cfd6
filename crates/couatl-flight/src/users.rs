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

    /// Changes a file, and lets nobody else who does it this way change it meanwhile. What fails leaves it as it is.
    ///
    /// # Errors
    /// Those of the change, and `invalid-argument` where the file cannot be read or written.
    pub fn change(path: &Path, change: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        // Until it is dropped.
        let lock = lockable(path).map_err(|error| failed("lock", path, error))?;
        // Not every file system has locks.
        if let Err(error) = lock.lock() {
            tracing::warn!(%error, "the file of users is not locked");
        }
        let mut users = Self::read(path)?;
        change(&mut users)?;
        users.write(path)
    }

    /// Writes a file in one step: a new one that only its owner can read, or one that those read who read it before.
    /// Where the path is a symbolic link, the file that it leads to is written.
    ///
    /// # Errors
    /// `invalid-argument` where it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let path = &target(path);
        let lines = self.by_name.iter().map(|(name, Entry { role, hash })| format!("{name}:{role}:{hash}\n"));
        let written = tempfile::NamedTempFile::new_in(folder(path)).and_then(|mut file| {
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

/// The file that a path leads to, where there is one.
fn target(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What those who change a file lock. It is not the file, which another takes the place of.
#[cfg(unix)]
fn lockable(path: &Path) -> std::io::Result<fs::File> {
    fs::File::open(folder(&target(path)))
}

/// Where folders cannot be locked, it is a file that stays.
#[cfg(not(unix))]
fn lockable(path: &Path) -> std::io::Result<fs::File> {
    fs::OpenOptions::new().create(true).append(true).open(target(path).with_extension("lock"))
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

impl Known {
    /// Takes the users as they are now. Who is missing for a moment, while the file is written, comes back as they were.
    fn replace(&mut self, users: Users) {
        for (name, entry) in self.users.by_name.iter().filter(|(name, _)| !users.by_name.contains_key(*name)) {
            self.gone.insert(Arc::clone(name), entry.hash.clone());
        }
        for (name, entry) in &users.by_name {
            if self.gone.remove(name).is_some_and(|hash| hash != entry.hash) {
                self.replaced.push(Arc::clone(name));
            }
        }
        self.users = Arc::new(users);
    }
}

/// The users of a running server.
#[derive(Debug)]
pub(crate) struct UserFile {
    path: PathBuf,
    read: Mutex<Known>,
}

/// What was read last.
#[derive(Debug)]
struct Known {
    changed: Option<SystemTime>,
    /// Whether the file of that time has been read; else the users are those of an earlier one.
    is_read: bool,
    users: Arc<Users>,
    /// Who was a user, and is none, with what there was of their passwords.
    gone: BTreeMap<Arc<str>, String>,
    /// The names of those among them that others have now, since somebody asked.
    replaced: Vec<Arc<str>>,
}

impl UserFile {
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        let changed = modified(&path);
        let users = Arc::new(Users::read(&path)?);
        Ok(Self {
            path,
            read: Mutex::new(Known { changed, is_read: true, users, gone: BTreeMap::new(), replaced: Vec::new() }),
        })
    }

    /// The users, as the file has them now. One that cannot be read leaves those that were known.
    pub(crate) fn current(&self) -> Arc<Users> {
        let mut read = self.read.lock();
        let changed = modified(&self.path);
        // One that cannot be read may be in the middle of a change that its time does not tell from the whole of it.
        if changed != read.changed || !read.is_read {
            match Users::read(&self.path) {
                Ok(users) => {
                    read.replace(users);
                    (read.changed, read.is_read) = (changed, true);
                }
                Err(error) => {
                    if changed != read.changed || read.is_read {
                        tracing::error!(%error, "the users are those of before");
                    }
                    (read.changed, read.is_read) = (changed, false);
                }
            }
        }
        Arc::clone(&read.users)
    }

    /// The names that others have now than before, since this was asked last.
    pub(crate) fn replaced(&self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.read.lock().replaced)
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

    #[test]
    fn changes_wait_for_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = &folder.path().join("users");
        let names = ["ann", "bob", "cid", "dan", "eve", "fay", "gus", "hal"];
        std::thread::scope(|scope| {
            for name in names {
                scope.spawn(move || Users::change(path, |users| users.add(name, Role::Reader, "x")).unwrap());
            }
        });
        assert_eq!(Users::read(path).unwrap().list().count(), names.len());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1 + usize::from(cfg!(not(unix))));
        let refused = Users::change(path, |users| {
            users.remove("ann");
            Err(Error::not_found("nobody"))
        });
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
        assert!(Users::read(path).unwrap().get("ann").is_some());
    }
}
