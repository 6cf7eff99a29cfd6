//! `couatl new`: the beginning of a connector, as a package that can be installed and tests itself.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use couatl_core::{Error, Result};

use crate::args::NewCommand;
use crate::stdout::Stdout;

/// The files of a package, by their paths in its folder.
const FILES: [(&str, &str); 4] = [
    ("pyproject.toml", include_str!("new/pyproject.toml.txt")),
    ("README.md", include_str!("new/README.md.txt")),
    ("src/@module@/__init__.py", include_str!("new/module.py.txt")),
    ("tests/test_@module@.py", include_str!("new/test.py.txt")),
];

/// What the module of a package imports, and words of the language: no class of its own may have these names.
const TAKEN: [&str; 9] = ["Any", "Columns", "False", "Iterator", "None", "Path", "Sink", "Source", "True"];

/// Writes the package.
pub(crate) fn run(command: &NewCommand) -> Result<u8> {
    let NewCommand::Connector { name, folder } = command;
    let names = Names::of(name)?;
    let folder = folder.clone().unwrap_or_else(|| format!("couatl-{name}").into());
    if folder.exists() {
        return Err(Error::already_exists(format!("'{}' is there already: give another --folder", folder.display())));
    }
    for (path, text) in FILES {
        write(&folder.join(names.put_into(path)), &names.put_into(text))?;
    }
    let mut stdout = Stdout::new();
    let shown = folder.display();
    let _ = writeln!(stdout, "{shown} has a source and a sink; next: cd {shown} && pip install -e '.[test]' && pytest");
    let _ = stdout.flush();
    Ok(0)
}

fn write(path: &Path, text: &str) -> Result<()> {
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, text));
    written.map_err(|error: io::Error| {
        Error::invalid_argument(format!("cannot write '{}': {error}", path.display())).with_source(error)
    })
}

/// What the connector is called, in SQL and in Python.
struct Names {
    name: String,
    module: String,
    class: String,
}

impl Names {
    fn of(name: &str) -> Result<Self> {
        let is_name = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
        if !is_name {
            return Err(Error::invalid_argument(format!(
                "expected a name of lower-case letters, digits, - and _, such as 'tide-gauge', got '{name}'"
            )));
        }
        if name == "python" {
            return Err(Error::invalid_argument(format!(
                "'{name}' is a type of the engine's own, which no connector can have as its name: give it another"
            )));
        }
        let capitalized = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
        let words = name.split(['-', '_']).filter(|word| !word.is_empty());
        let class: String = words.map(capitalized).collect();
        if TAKEN.contains(&class.as_str()) {
            return Err(Error::invalid_argument(format!(
                "'{name}' would make a class {class}, which means something else in Python: give it another name"
            )));
        }
        Ok(Self { name: name.to_owned(), module: format!("couatl_{}", name.replace('-', "_")), class })
    }

    fn put_into(&self, text: &str) -> String {
        text.replace("@name@", &self.name).replace("@module@", &self.module).replace("@class@", &self.class)
    }
}
