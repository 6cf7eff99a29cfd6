//! Bodies pass through to the letter, whatever they hold, and it is known on which line they begin.

use crate::definition;

fn create(quote: &str, body: &str) -> String {
    format!("CREATE EXTERNAL STREAM s (a int) AS {quote}{body}{quote} SETTINGS type = 'python'")
}

#[test]
fn to_the_letter() {
    let between_dollars = [
        "",
        " ",
        "\n",
        "\r\nx = 1\r\n\r\ny\r",
        "a;b;\n;",
        "'",
        "''' \"\"\" ` \\ \\' \\n",
        "-- no comment",
        "/* no comment",
        "*/",
        "# ? ?1 $1 :x @y",
        "$",
        "$a",
        "a$b$c",
        " $x$ $ $y$ ",
        "$\n$",
        "\t\0\u{1}\u{7f}\u{feff}\u{2028}é😀\u{202e}e\u{301}",
        "DROP STREAM s; SETTINGS type = 'python'",
    ];
    for body in between_dollars {
        // A body that starts or ends in a dollar is no business of untagged quotes.
        if !body.starts_with('$') && !body.ends_with('$') {
            assert_eq!(&*definition(&create("$$", body)).body.text, body);
        }
    }
    let between_tags = ["$$", "$$$", "$$$$", "a$$b", "$$a$$", "$ta", "$tag $", "$Tag$", "$tag_$", "tag$", "x$$"];
    for body in between_dollars.into_iter().chain(between_tags) {
        assert_eq!(&*definition(&create("$tag$", body)).body.text, body);
    }
}

#[test]
fn dollars_at_the_edges() {
    assert_eq!(&*definition(&create("$$", "$a")).body.text, "$a");
    assert_eq!(&*definition(&create("$$", "$ $ ")).body.text, "$ $ ");
}

#[test]
fn a_megabyte() {
    for line in ["x = '$' # ; ?\n", "é = 1; ", "$ $t $ ", "a"] {
        let body = format!(" {} ", line.repeat(1_000_000 / line.len()));
        for quote in ["$$", "$body$", "$a_rather_long_tag_that_is_compared_at_every_step$"] {
            assert_eq!(&*definition(&create(quote, &body)).body.text, body);
        }
    }
}

#[test]
fn first_lines() {
    let line = |text: &str| definition(text).body.first_line;
    assert_eq!(line(&create("$$", "\nx")), 1);
    assert_eq!(line(&create("$$", "x\n").replace("AS", "\r\n-- a comment\r\n\r\nAS /* two\nlines */")), 5);
    assert_eq!(line(&format!("\n\n-- about it\n{}", create("$$", "\n").replace("AS", "\nAS\n"))), 3);
    let second = format!("SELECT 1;\n\n\n  {}", create("$$", "\n").replace("AS", "\nAS"));
    assert_eq!(couatl_sql::parse(&second).unwrap().len(), 2);
    assert_eq!(line(second.split_once(';').unwrap().1), 2);
    let first = format!("{};SELECT 1", create("$$", "\n").replace("AS", "\nAS"));
    assert_eq!(line(&first), 2);
}
