//! What the user code of one opening is told beside its definition: secrets, and credentials for the way back.
//!
//! A definition names its secrets, `${secret:NAME}`, and is shown and stored so. Their values are read when a query
//! opens the stream, are told to its code alone, and are taken out of whatever error comes of it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::{Error, Result};

/// Shorter ones are not taken out of errors: too much that is no secret would look like them.
const HIDDEN_BYTES: usize = 4;

/// What is like a part of a secret for so long is taken for one.
const PART_CHARS: usize = 10;

const OPEN: &str = "${secret:";

/// Where secrets are found: a file for each in a folder, else the environment variable `COUATL_SECRET_NAME`.
///
/// ```
/// use couatl_core::{ErrorKind, Secrets};
///
/// let folder = tempfile::tempdir()?;
/// std::fs::write(folder.path().join("token"), "s3cr3t\n")?;
/// let secrets = Secrets::new(Some(folder.path().into()));
/// assert_eq!(secrets.resolve("token=${secret:token}")?, "token=s3cr3t");
/// assert_eq!(secrets.resolve("${secret:other}").unwrap_err().kind(), ErrorKind::NotFound);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    folder: Option<PathBuf>,
}

impl Secrets {
    /// Those of a folder and of the environment; without a folder, of the environment alone.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self { folder }
    }

    /// The text with the values of the secrets that it names. A line break at the end of a file is not part of its value.
    ///
    /// # Errors
    /// `invalid-setting` where a reference cannot be read; `not-found` where there is no such secret.
    pub fn resolve<'t>(&self, text: &'t str) -> Result<Cow<'t, str>> {
        self.resolve_with(text, |_, _| ())
    }

    /// Tells each reference and its value to `told`.
    fn resolve_with<'t>(&self, text: &'t str, mut told: impl FnMut(&str, &str)) -> Result<Cow<'t, str>> {
        if !text.contains(OPEN) {
            return Ok(Cow::Borrowed(text));
        }
        let mut resolved = String::new();
        for piece in pieces(text) {
            match piece? {
                Piece::Text(text) => resolved.push_str(text),
                Piece::Secret(name) => {
                    let value = self.value(name)?;
                    told(&format!("{OPEN}{name}}}"), &value);
                    resolved.push_str(&value);
                }
            }
        }
        Ok(Cow::Owned(resolved))
    }

    fn value(&self, name: &str) -> Result<String> {
        let file = self.folder.as_ref().map(|folder| folder.join(name)).filter(|path| path.is_file());
        let variable = format!("COUATL_SECRET_{name}");
        let found = match file {
            Some(path) => std::fs::read_to_string(path).map_err(|error| error.to_string()),
            None => std::env::var(&variable).map_err(|error| error.to_string()),
        };
        match found {
            Ok(value) => Ok(value.strip_suffix('\n').map_or(value.as_str(), |v| v.trim_end_matches('\r')).to_owned()),
            Err(reason) => Err(Error::not_found(format!(
                "there is no secret '{name}' ({reason}): put it into a file of that name in the folder of secrets, or \
                 into the environment variable {variable}"
            ))),
        }
    }
}

/// Refuses a text whose references to secrets cannot be read, whether or not there are such secrets.
///
/// # Errors
/// `invalid-setting`.
pub fn check_secret_references(text: &str) -> Result<()> {
    pieces(text).try_for_each(|piece| piece.map(drop))
}

/// Whether a text is one reference to a secret, and nothing else.
pub fn is_secret_reference(text: &str) -> bool {
    text.starts_with(OPEN) && text.find('}') == Some(text.len() - 1)
}

enum Piece<'t> {
    Text(&'t str),
    Secret(&'t str),
}

fn pieces(text: &str) -> impl Iterator<Item = Result<Piece<'_>>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some(reference) = rest.strip_prefix(OPEN) else {
            let (before, after) = rest.split_at(rest.find(OPEN).unwrap_or(rest.len()));
            rest = after;
            return Some(Ok(Piece::Text(before)));
        };
        let (name, after) = reference.split_once('}').unwrap_or((reference, ""));
        rest = after;
        let is_word = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        let is_name = !name.is_empty() && !name.starts_with('.') && name.chars().all(is_word);
        Some(match is_name && reference.len() > name.len() {
            true => Ok(Piece::Secret(name)),
            false => Err(Error::invalid_setting(
                "cannot read the reference to a secret: expected ${secret:NAME}, with letters, digits, '_', '-' and '.' \
                 in its name",
            )),
        })
    })
}

/// What lets the code of a stream ask the server that runs it, while its query runs.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

/// What one opening of a source or a sink is told. The default knows the secrets of the environment and nobody to ask.
#[derive(Debug, Default)]
pub struct OpenContext {
    secrets: Arc<Secrets>,
    credentials: Option<Credentials>,
    /// The values that were told, and what stands for them.
    told: Arc<AllTold>,
    /// The parameters of the init function.
    parameters: Arc<AllTold>,
}

/// Values that were told, and what stands for them.
type AllTold = Mutex<Vec<(Told, String)>>;

/// What was told to all code that is open in this process.
static ALL_TOLD: Mutex<Vec<Weak<AllTold>>> = Mutex::new(Vec::new());

/// A text without what any code that is open has been told, parameters of init functions among it, as
/// [`OpenContext::hide`] leaves it out: for logs, which belong to no query.
///
/// ```
/// use std::sync::Arc;
///
/// use couatl_core::{Credentials, OpenContext, Secrets, hidden};
///
/// let credentials = Credentials { user: "query".into(), password: "correct horse".into() };
/// let open = OpenContext::new(Arc::new(Secrets::default()), Some(credentials));
/// assert_eq!(hidden("logged in with correct horse"), "logged in with (password)");
/// drop(open);
/// ```
pub fn hidden(text: &str) -> String {
    let all = ALL_TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let all: Vec<_> = all.iter().filter_map(Weak::upgrade).collect();
    all.iter().fold(text.to_owned(), |text, told| match forms_of(told) {
        forms if forms.is_empty() => text,
        forms => without(text, &forms),
    })
}

/// A value that is not to be printed.
struct Told(String);

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl OpenContext {
    /// With these secrets, and these credentials.
    pub fn new(secrets: Arc<Secrets>, credentials: Option<Credentials>) -> Self {
        let password = credentials.iter().map(|credentials| credentials.password.clone());
        let told = password.map(|password| (Told(password), "(password)".to_owned())).collect();
        let told = Arc::new(Mutex::new(told));
        let mut all = ALL_TOLD.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|told| told.strong_count() > 0);
        let parameters = Arc::default();
        all.extend([&told, &parameters].map(Arc::downgrade));
        Self { secrets, credentials, told, parameters }
    }

    /// What lets user code ask the server; none where there is no server.
    pub fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// A setting with the values of the secrets that it names.
    ///
    /// # Errors
    /// Those of [`Secrets::resolve`].
    pub fn resolve<'t>(&self, setting: &'t str) -> Result<Cow<'t, str>> {
        self.secrets.resolve_with(setting, |reference, value| {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.push((Told(value.to_owned()), reference.to_owned()));
        })
    }

    /// The parameters of the init function, as [`resolve`](Self::resolve) has them: some write a password there as it is.
    ///
    /// # Errors
    /// Those of [`Secrets::resolve`].
    pub fn init_parameters<'t>(&self, parameters: &'t str) -> Result<Cow<'t, str>> {
        let resolved = self.resolve(parameters)?;
        // Words and numbers, which stand everywhere, are no passwords.
        if resolved.len() >= PART_CHARS {
            let mut told = self.parameters.lock().unwrap_or_else(PoisonError::into_inner);
            told.push((Told(resolved.clone().into_owned()), "(init_function_parameters)".to_owned()));
        }
        Ok(resolved)
    }

    /// The error without what was told, however Python has written it down: as it is, as `repr` or JSON write it, a line
    /// of it, or any part of it that is long enough to be no chance.
    #[must_use]
    pub fn hide(&self, error: Error) -> Error {
        hide(error, &self.told)
    }

    /// The error for those who do not see the definition: without the parameters of the init function too.
    #[must_use]
    pub fn hide_parameters(&self, error: Error) -> Error {
        hide(error, &self.parameters)
    }
}

fn hide(error: Error, told: &AllTold) -> Error {
    let forms = forms_of(told);
    if forms.is_empty() {
        return error;
    }
    error.map_texts(|text| without(text, &forms))
}

/// All forms of what was told, and what stands for each. One may begin like another, and be longer.
fn forms_of(told: &AllTold) -> Vec<(String, String)> {
    let told = told.lock().unwrap_or_else(PoisonError::into_inner);
    let forms = told
        .iter()
        .flat_map(|(Told(value), reference)| forms(value).into_iter().map(move |form| (form, reference.clone())));
    let mut forms: Vec<_> = forms.collect();
    forms.sort_by_key(|(form, _)| std::cmp::Reverse(form.len()));
    forms
}

fn without(text: String, forms: &[(String, String)]) -> String {
    let whole = forms.iter().fold(text, |text, (form, reference)| text.replace(form, reference));
    without_parts(&whole, forms)
}

/// The forms in which a value may be written down: as it is, as `repr` and JSON have it, and as it stands in addresses and
/// headers.
fn forms(value: &str) -> Vec<String> {
    let escape = |text: &str, quote: char| {
        text.chars().fold(String::new(), |mut escaped, c| {
            match c {
                '\\' => escaped.push_str("\\\\"),
                '\n' => escaped.push_str("\\n"),
                '\r' => escaped.push_str("\\r"),
                '\t' => escaped.push_str("\\t"),
                c if c == quote => escaped.extend(['\\', c]),
                c => escaped.push(c),
            }
            escaped
        })
    };
    let bytes = |is_plain: fn(u8) -> bool, prefix: &str, upper: bool| {
        value.bytes().fold(String::new(), |mut out, byte| {
            match (is_plain(byte), upper) {
                (true, _) => out.push(byte.into()),
                (false, true) => out += &format!("{prefix}{byte:02X}"),
                (false, false) => out += &format!("{prefix}{byte:02x}"),
            }
            out
        })
    };
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let whole = [
        value.to_owned(),
        value.to_uppercase(),
        value.to_lowercase(),
        escape(value, '\''),
        escape(value, '"'),
        escape(value, '\0'),
        bytes(unreserved, "%", true),
        bytes(unreserved, "%", true).replace("%20", "+").replace('/', "%2F"),
        bytes(|byte| byte.is_ascii_graphic() || byte == b' ', "\\x", false),
        bytes(|_| false, "", false),
    ];
    let lines = value.lines().filter(|line| line.len() >= PART_CHARS);
    let lines = lines.flat_map(|line| [line.to_owned(), escape(line, '\''), escape(line, '"')]);
    // In base64, three forms, by what stands before.
    let encoded = (0..3).map(|before| base64_inside(value.as_bytes(), before)).flat_map(|form| {
        let url = form.replace('+', "-").replace('/', "_");
        [form, url]
    });
    let forms = whole.into_iter().chain(lines).chain(encoded.filter(|form| form.len() >= PART_CHARS));
    let mut forms: Vec<_> = forms.filter(|form| form.len() >= HIDDEN_BYTES).collect();
    forms.sort();
    forms.dedup();
    forms
}

/// The letters of base64 that only these bytes decide, where so many others stand before them.
fn base64_inside(bytes: &[u8], before: usize) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bit = |at: usize| bytes[at / 8] >> (7 - at % 8) & 1;
    let bits = bytes.len() * 8;
    // The first letter that begins within them.
    let first = (6 - before * 8 % 6) % 6;
    let letters = (first..).step_by(6).take_while(|at| at + 6 <= bits);
    letters.map(|at| char::from(LETTERS[(at..at + 6).fold(0, |six, at| six << 1 | usize::from(bit(at)))])).collect()
}

/// A text with references in the place of what it has in common with forms: texts are cut where they are too long.
fn without_parts(text: &str, forms: &[(String, String)]) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut parts: Vec<Option<&str>> = vec![None; chars.len()];
    for (form, reference) in forms {
        let form: Vec<char> = form.chars().collect();
        let of_form: HashSet<&[char]> = form.windows(PART_CHARS).collect();
        for (at, window) in chars.windows(PART_CHARS).enumerate() {
            if of_form.contains(window) {
                parts[at..at + PART_CHARS].fill(Some(reference));
            }
        }
    }
    let mut out = String::new();
    let mut before = None;
    for (c, part) in chars.into_iter().zip(parts) {
        match part {
            Some(reference) if before.is_none() => out.push_str(reference),
            Some(_) => {}
            None => out.push(c),
        }
        before = part;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> (Arc<Secrets>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "alpha\n").unwrap();
        std::fs::write(folder.path().join("b.c-d_e"), "beta\nbeta\r\n").unwrap();
        (Arc::new(Secrets::new(Some(folder.path().to_owned()))), folder)
    }

    #[test]
    fn references_are_replaced_and_nothing_else() {
        let (secrets, _folder) = secrets();
        for (text, expected) in [
            ("", ""),
            ("none ${a} $secret:a}", "none ${a} $secret:a}"),
            ("${secret:a}", "alpha"),
            ("x${secret:a}${secret:b.c-d_e}}", "xalphabeta\nbeta}"),
        ] {
            assert_eq!(secrets.resolve(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_reference_is_refused_without_a_look_at_files() {
        let (secrets, _folder) = secrets();
        for text in ["${secret:}", "${secret:a", "${secret:../a}", "${secret:.a}", "${secret:a b}", "${secret:a/b}"] {
            assert_eq!(check_secret_references(text).unwrap_err().kind(), crate::ErrorKind::InvalidSetting, "{text}");
            assert!(secrets.resolve(text).is_err());
        }
        check_secret_references("${secret:missing}").unwrap();
        let error = secrets.resolve("${secret:missing}").unwrap_err().to_string();
        assert!(error.contains("'missing'") && error.contains("COUATL_SECRET_missing"), "{error}");
    }

    #[test]
    fn what_was_told_is_not_said_in_any_form() {
        let value = "it's\n\"so\" secret\\!";
        let (reference, forms) = ("REF".to_owned(), forms(value));
        let forms: Vec<_> = forms.into_iter().map(|form| (form, reference.clone())).collect();
        for text in
            [value, "'it\\'s\\n\"so\" secret\\\\!'", r#""it's\n\"so\" secret\\!""#, "cannot store 'it\\'s\\n\"so…'"]
        {
            let out = without_parts(text, &forms);
            assert!(out.contains("REF") && !out.contains("so") && !out.contains("it"), "{text} gives {out}");
        }
        let digits = [("0123456789abcdef".to_owned(), reference)];
        for (text, expected) in
            [("x0123456789…", "xREF…"), ("…6789abcdef", "…REF"), ("…56789abcdefx", "…REFx"), ("01234567", "01234567")]
        {
            assert_eq!(without_parts(text, &digits), expected);
        }
    }

    #[test]
    fn what_was_told_is_not_said_in_headers_and_addresses() {
        let value = "pässword/with blank+7";
        let (reference, forms) = ("REF".to_owned(), forms(value));
        let forms: Vec<_> = forms.into_iter().map(|form| (form, reference.clone())).collect();
        for text in [
            "p%C3%A4ssword/with%20blank%2B7",
            "p%C3%A4ssword%2Fwith+blank%2B7",
            "b'p\\xc3\\xa4ssword/with blank+7'",
            "70c3a473736f72",
            "cMOkc3N3b3JkL3dpdGggYmxhbmsrNw==",
            "dTpww6Rzc3dvcmQvd2l0aCBibGFuays3",
            "dXU6cMOkc3N3b3JkL3dpdGggYmxhbmsrNw==",
            "PÄSSWORD/WITH BLANK+7",
        ] {
            let whole = forms.iter().fold(text.to_owned(), |text, (form, reference)| text.replace(form, reference));
            let out = without_parts(&whole, &forms);
            assert!(text == "70c3a473736f72" || out.contains("REF"), "{text} gives {out}");
            assert!(
                !out.contains("ssword") && !out.contains("blank") && !out.contains("c3N3b3Jk"),
                "{text} gives {out}"
            );
        }
    }

    #[test]
    fn what_was_told_is_not_said() {
        let (secrets, _folder) = secrets();
        let credentials = Credentials { user: "query".into(), password: "p4ssw0rd".into() };
        let context = OpenContext::new(secrets, Some(credentials));
        assert_eq!(context.resolve("${secret:a}").unwrap(), "alpha");
        assert!(!format!("{context:?}").contains("alpha") && !format!("{context:?}").contains("p4ssw0rd"));
        let error = Error::internal("cannot reach alpha with p4ssw0rd").with_context("url", "tcp://alpha");
        let error = context.hide(error);
        assert_eq!(error.to_string(), "cannot reach ${secret:a} with (password)");
        assert_eq!(error.context().collect::<Vec<_>>(), [("url", "tcp://${secret:a}")]);
    }
}
