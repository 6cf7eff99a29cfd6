//! How deep a statement is that DataFusion parses.
//!
//! `1 + 1 + 1` is a tree as deep as it is long, and whatever walks a tree, or drops one, takes a piece of the stack for
//! each of its levels: chains are counted here, on the tokens, before there is a tree. Lists (`IN (…)`, VALUES, columns,
//! CASE) are flat, however long they are.
//!
//! What is nested in brackets is counted, too. Some forms (`CAST(…)`, `ARRAY[…]`) the parser takes for a function's call
//! where they hold an error, and reads again: one inside the other, the innermost is read a thousand times at ten levels,
//! and for ever at fifty.

use couatl_core::{Error, Result};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::lexer::is_significant;

/// The deepest statement that is taken.
const MOST_LEVELS: usize = 500;
/// The most brackets and CASEs inside one another.
const MOST_NESTED: usize = 50;
/// The most of them that the parser may read twice.
const MOST_TWICE: usize = 12;

/// Refuses a statement that is too deep.
///
/// # Errors
/// `invalid-syntax`, which says how deep it is.
pub(crate) fn check(tokens: &[TokenWithSpan]) -> Result<()> {
    let Depth { levels, nested, twice } = depth(tokens);
    let problem = if nested > MOST_NESTED {
        format!(
            "the statement is nested too deeply: it has {nested} brackets and CASEs inside one another, and the limit \
             is {MOST_NESTED}; give inner parts a name, by WITH or CREATE VIEW"
        )
    } else if twice > MOST_TWICE {
        format!(
            "the statement is nested too deeply: it has {twice} forms like CAST(…), ARRAY[…], SUBSTRING(…) and NOT (…) \
             inside one another, and the limit is {MOST_TWICE}; give inner parts a name, by WITH or CREATE VIEW"
        )
    } else if levels > MOST_LEVELS {
        format!(
            "the statement is too deep: it has {levels} levels, and the limit is {MOST_LEVELS}; each operator in a \
             chain (1 + 1 + 1) takes a level, a join two, a cast three: write a list (IN, VALUES, concat) or several \
             statements"
        )
    } else {
        return Ok(());
    };
    Err(Error::invalid_syntax(problem))
}

/// How tightly an operator binds: those that bind loosely are nearer to the root.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bond {
    SetOperation,
    Join,
    Or,
    And,
    Compare,
    Add,
    Multiply,
    Postfix,
}

impl Bond {
    /// How much of the stack an operator takes, as a multiple of what an addition does.
    fn levels(self) -> usize {
        match self {
            Self::Postfix => 3,
            Self::Join => 2,
            _ => 1,
        }
    }
}

const BONDS: usize = Bond::Postfix as usize + 1;

/// What stands between two parentheses, or in a CASE: chains of operators, whose operands are chains of those that bind
/// tighter.
#[derive(Default)]
struct Group {
    /// How many levels the chain of each bond has so far.
    operators: [usize; BONDS],
    /// The deepest operand that the chain of each bond has had.
    operands: [usize; BONDS],
    /// The deepest group in the operand that is being read.
    inner: usize,
    /// Whether END closes it.
    is_case: bool,
    /// Whether the parser may read it twice.
    is_twice: bool,
    /// Whether a comma joins two tables.
    in_from: bool,
}

impl Group {
    /// Ends all chains from this bond on: how deep they are together.
    fn end(&mut self, from: usize) -> usize {
        (from..BONDS).rev().fold(std::mem::take(&mut self.inner), |operand, bond| {
            std::mem::take(&mut self.operators[bond]) + std::mem::take(&mut self.operands[bond]).max(operand)
        })
    }

    fn operator(&mut self, bond: Bond) {
        self.operand_ends(bond);
        self.operators[bond as usize] += bond.levels();
    }

    /// Another operand follows, and makes the chain no deeper: another column, another branch.
    fn operand_ends(&mut self, bond: Bond) {
        let bond = bond as usize;
        let operand = self.end(bond + 1);
        self.operands[bond] = self.operands[bond].max(operand);
    }
}

/// How deep a statement is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Depth {
    /// The levels of its tree, or a little more: they are counted by precedence alone.
    levels: usize,
    /// How many brackets and CASEs are inside one another.
    nested: usize,
    /// How many of these the parser may read twice.
    twice: usize,
}

/// How deep the tree of the tokens is.
///
/// A keyword may be the name of a column, so none but SELECT, UNION and the like ends a chain of operators unseen.
fn depth(tokens: &[TokenWithSpan]) -> Depth {
    let (mut depth, mut twice) = (Depth::default(), 0);
    let mut outer: Vec<Group> = Vec::new();
    let mut group = Group::default();
    let mut previous = &Token::Comma;
    for token in tokens.iter().filter(|token| is_significant(token)).map(|token| &token.token) {
        let is_name = matches!(previous, Token::Period);
        let after_not = matches!(previous, Token::Word(word) if word.keyword == Keyword::NOT);
        let is_twice = matches!(previous, Token::Word(word) if is_read_twice(word.keyword));
        let after_operand = ends_operand(std::mem::replace(&mut previous, token));
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                if *token == Token::LBracket {
                    group.operator(Bond::Postfix);
                }
                outer.push(std::mem::replace(&mut group, Group { is_twice, ..Group::default() }));
                twice += usize::from(is_twice);
                depth.twice = depth.twice.max(twice);
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                while group.is_case && !outer.is_empty() {
                    close(&mut group, &mut outer);
                }
                twice -= usize::from(group.is_twice);
                close(&mut group, &mut outer);
            }
            Token::Comma if group.in_from => group.operator(Bond::Join),
            Token::Comma => group.operand_ends(Bond::Join),
            Token::Word(word) if !is_name => match word.keyword {
                Keyword::CASE => {
                    outer.push(std::mem::take(&mut group));
                    group.is_case = true;
                }
                Keyword::END if group.is_case => close(&mut group, &mut outer),
                Keyword::WHEN | Keyword::THEN | Keyword::ELSE if group.is_case && after_operand => {
                    group.operand_ends(Bond::Join);
                }
                Keyword::NOT if after_not => group.operator(Bond::And),
                Keyword::FROM => group.in_from = true,
                Keyword::SELECT
                | Keyword::WHERE
                | Keyword::GROUP
                | Keyword::HAVING
                | Keyword::ORDER
                | Keyword::WINDOW
                | Keyword::QUALIFY => group.in_from = false,
                keyword => {
                    if let Some(bond) = bond_of_word(keyword) {
                        group.operator(bond);
                    }
                }
            },
            token => {
                if let Some(bond) = bond(token) {
                    group.operator(bond);
                }
            }
        }
        depth.nested = depth.nested.max(outer.len());
    }
    while !outer.is_empty() {
        close(&mut group, &mut outer);
    }
    depth.levels = group.end(0);
    depth
}

/// Whether the parser reads brackets after this word as its own form, and as a function's call where that fails.
fn is_read_twice(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::ARRAY
            | Keyword::CASE
            | Keyword::CAST
            | Keyword::CEIL
            | Keyword::CONVERT
            | Keyword::CURRENT_CATALOG
            | Keyword::CURRENT_DATE
            | Keyword::CURRENT_TIME
            | Keyword::CURRENT_TIMESTAMP
            | Keyword::CURRENT_USER
            | Keyword::EXISTS
            | Keyword::EXTRACT
            | Keyword::FLOOR
            | Keyword::INTERVAL
            | Keyword::LAMBDA
            | Keyword::LOCALTIME
            | Keyword::LOCALTIMESTAMP
            | Keyword::MAP
            | Keyword::MATCH
            | Keyword::NOT
            | Keyword::OVERLAY
            | Keyword::POSITION
            | Keyword::PRIOR
            | Keyword::ROW
            | Keyword::SAFE_CAST
            | Keyword::SESSION_USER
            | Keyword::STRUCT
            | Keyword::SUBSTR
            | Keyword::SUBSTRING
            | Keyword::TRIM
            | Keyword::TRY_CAST
            | Keyword::TRY_CONVERT
            | Keyword::USER
            | Keyword::VALUES
    )
}

fn close(group: &mut Group, outer: &mut Vec<Group>) {
    let Some(next) = outer.pop() else { return };
    let levels = std::mem::replace(group, next).end(0);
    group.inner = group.inner.max(levels + 1);
}

fn ends_operand(token: &Token) -> bool {
    match token {
        Token::Word(word) => bond_of_word(word.keyword).is_none(),
        Token::RParen | Token::RBracket | Token::RBrace => true,
        token => {
            !matches!(token, Token::Comma | Token::LParen | Token::LBrace | Token::LBracket) && bond(token).is_none()
        }
    }
}

fn bond_of_word(keyword: Keyword) -> Option<Bond> {
    Some(match keyword {
        Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS => Bond::SetOperation,
        Keyword::JOIN | Keyword::APPLY => Bond::Join,
        Keyword::OR | Keyword::XOR => Bond::Or,
        Keyword::AND => Bond::And,
        Keyword::IS
        | Keyword::IN
        | Keyword::LIKE
        | Keyword::ILIKE
        | Keyword::RLIKE
        | Keyword::REGEXP
        | Keyword::SIMILAR
        | Keyword::BETWEEN
        | Keyword::NOTNULL
        | Keyword::OVERLAPS => Bond::Compare,
        Keyword::DIV | Keyword::MOD => Bond::Multiply,
        Keyword::COLLATE | Keyword::AT => Bond::Postfix,
        _ => return None,
    })
}

/// The bond of an operator; none of what is not one. Operators that SQL seldom has are taken for additions.
fn bond(token: &Token) -> Option<Bond> {
    Some(match token {
        Token::EOF
        | Token::Word(_)
        | Token::Number(..)
        | Token::Char(_)
        | Token::SingleQuotedString(_)
        | Token::DoubleQuotedString(_)
        | Token::DollarQuotedString(_)
        | Token::NationalStringLiteral(_)
        | Token::HexStringLiteral(_)
        | Token::EscapedStringLiteral(_)
        | Token::UnicodeStringLiteral(_)
        | Token::Placeholder(_)
        | Token::Whitespace(_)
        | Token::SemiColon
        | Token::RArrow
        | Token::Assignment => return None,
        Token::Eq
        | Token::DoubleEq
        | Token::Neq
        | Token::Lt
        | Token::Gt
        | Token::LtEq
        | Token::GtEq
        | Token::Spaceship => Bond::Compare,
        Token::Mul | Token::Div | Token::DuckIntDiv | Token::Mod => Bond::Multiply,
        Token::DoubleColon | Token::Colon | Token::Period | Token::ExclamationMark => Bond::Postfix,
        _ => Bond::Add,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lexer;

    fn levels(text: &str) -> usize {
        depth(&lexer::tokens(text).unwrap()).levels
    }

    fn chain(first: &str, next: &str, count: usize) -> String {
        format!("SELECT {first}{}", next.repeat(count))
    }

    #[test]
    fn chains_are_as_deep_as_they_are_long() {
        for (first, next, expected) in [
            ("1", " + 1", 1),
            ("'a'", " || 'a'", 1),
            ("1", "::int", 3),
            ("1", " UNION ALL SELECT 1", 1),
            ("* FROM a", " CROSS JOIN a", 2),
            ("* FROM a", ", a", 2),
            ("true", " AND true", 1),
            ("a", " IS NULL", 1),
            ("a", "[1]", 3),
            ("a", ".b", 3),
            ("a", " -> 'x'", 1),
            ("true", " AND a IS DISTINCT FROM b", 1),
            ("true", " AND a IS NOT NULL", 1),
            ("NOT", " NOT", 1),
            ("1", " + f(end, 1)", 1),
            ("1", " + limit", 1),
            ("CASE WHEN 1", " + then", 1),
        ] {
            let (least, found) = (2000 * expected, levels(&chain(first, next, 2000)));
            assert!((least..least + 3).contains(&found), "{next}: {found}");
        }
        assert_eq!(levels(&chain("1 = 2", " OR 1 = 2", 300)), 301);
        assert_eq!(levels("SELECT 1 + 2 * 3 * 4 + 5 = 6 AND true"), 6);
        assert_eq!(levels("SELECT ((1))"), 2);
    }

    #[test]
    fn lists_are_flat() {
        for text in [
            format!("SELECT a IN (1{})", ", 1 + 1".repeat(20_000)),
            format!("VALUES (1 + 1){}", ", (1 + 1)".repeat(20_000)),
            format!("INSERT INTO s (a, b) VALUES (1, -1){}", ", (1, -1)".repeat(20_000)),
            format!("SELECT 1 + 1{} FROM a WHERE b = 1", ", b * 2".repeat(20_000)),
            format!("SELECT CASE{} ELSE 1 END", " WHEN a = 1 AND b = 2 THEN a + 1".repeat(20_000)),
            format!("SELECT concat('a'{})", ", 'b' || 'c'".repeat(20_000)),
            format!("WITH a AS (SELECT 1){} SELECT 1", ", b AS (SELECT 1)".repeat(20_000)),
        ] {
            let levels = levels(&text);
            assert!(levels <= 5, "{}: {levels}", &text[..40]);
            check(&lexer::tokens(&text).unwrap()).unwrap();
        }
    }

    #[test]
    fn brackets_are_counted_while_they_are_open() {
        let found = |text: &str| {
            let found = depth(&lexer::tokens(text).unwrap());
            (found.nested, found.twice)
        };
        assert_eq!(found("SELECT cast(cast(1 AS int) AS int), cast(1 AS int), array[1], (1)"), (2, 2));
        assert_eq!(found("SELECT abs((1)), [[1]], {'a': 1}, CASE WHEN (1) THEN 2 END, a.cast(1)"), (2, 1));
        assert_eq!(found("SELECT NOT (NOT (true)), NOT true, CASE (CASE (1) END) END"), (4, 2));
        assert_eq!(found("SELECT ) ) ("), (1, 0));
    }

    #[test]
    fn too_deep_is_refused_with_the_depth() {
        let refused = check(&lexer::tokens(&chain("1", " + 1", 2000)).unwrap()).unwrap_err().to_string();
        assert!(
            refused.starts_with("the statement is too deep: it has 2000 levels, and the limit is 500; "),
            "{refused}"
        );
    }
}
