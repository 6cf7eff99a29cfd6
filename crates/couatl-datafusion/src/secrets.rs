//! What statements say that is nobody's business: secrets among their options, logins in their places.

use std::collections::HashMap;

use couatl_core::{Error, Result, is_secret_reference};
use datafusion::logical_expr::LogicalPlan;
use url::Url;

/// Whether the value of an option of this name is nobody's business.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["secret", "password", "token", "key", "credential"].iter().any(|word| name.contains(word))
}

/// A statement as it is shown to everybody: without the secrets among its options, whole where they are written in a way
/// that they cannot be told from the rest.
pub(crate) fn without_secrets(text: &str, options: &HashMap<String, String>) -> String {
    let mut shown = text.to_owned();
    let secrets =
        options.iter().filter(|(name, value)| is_secret(name) && !value.is_empty() && !is_secret_reference(value));
    for (name, value) in secrets {
        let quoted = format!("'{}'", value.replace('\'', "''"));
        shown = shown.replace(&quoted, "'hidden'");
        if !text.contains(&quoted) || shown.contains(value) {
            return format!("-- hidden: it holds the secret option {name}, which is not written as '…'");
        }
    }
    shown
}

/// Refuses a place with a login in it: plans, errors and logs name places.
pub(crate) fn no_login(location: &str) -> Result<()> {
    let Ok(place) = Url::parse(location) else { return Ok(()) };
    // Azure's containers stand where others have users.
    let is_user = !place.username().is_empty() && !place.scheme().starts_with("abfs");
    if is_user || place.password().is_some() {
        let text = "a place with a login in it (scheme://user:password@host) is not taken, as it would be shown: give \
                    the login with OPTIONS";
        return Err(Error::invalid_argument(text));
    }
    Ok(())
}

/// Refuses to explain what would be shown with the secrets among its options.
pub(crate) fn no_shown_secrets(plan: &LogicalPlan) -> Result<()> {
    if let LogicalPlan::Copy(copy) = plan {
        no_login(&copy.output_url)?;
    }
    match plan {
        LogicalPlan::Copy(copy) if copy.options.keys().any(|name| is_secret(name)) => Err(Error::unsupported(
            "EXPLAIN would show the secrets among these OPTIONS: explain the statement without them",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_external_tables_are_hidden() {
        let text = "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 's3://b' \
                    OPTIONS ('aws.secret_access_key' 'it''s', 'format.delimiter' ';')";
        let options = HashMap::from([
            ("aws.secret_access_key".to_owned(), "it's".to_owned()),
            ("format.delimiter".to_owned(), ";".to_owned()),
        ]);
        assert_eq!(without_secrets(text, &options), text.replace("'it''s'", "'hidden'"));
        for written in ["\"it's\"", "E'it\\'s'"] {
            let shown = without_secrets(&text.replace("'it''s'", written), &options);
            assert!(shown.starts_with("-- hidden"), "{shown}");
        }
        for (place, is_refused) in [
            ("s3://b/a@b", false),
            ("https://ann:pw@host/x", true),
            ("https://token@host", true),
            ("https:/ann:pw@host", true),
            ("abfss://box@account.net/x", false),
            ("/a/b@c", false),
        ] {
            assert_eq!(no_login(place).is_err(), is_refused, "{place}");
        }
    }
}
