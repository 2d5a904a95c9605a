//! Compiles a text to nodes.

use cel::common::ast::{CallExpr, Expr, LiteralValue, operators};
use cel::parser::Parser;
use http::header::{HeaderName, REFERER, USER_AGENT};

use super::{Attribute, Expression, ExpressionError, MAX_LENGTH};
use crate::base::schema::parse_istio_duration;
use crate::base::{Regex, RegexError, Str};

/// How deep an expression may be: parsers and evaluation recurse.
const MAX_DEPTH: u16 = 32;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A part of an expression.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Bool(bool),
    Int(i64),
    Double(f64),
    /// In nanoseconds.
    Duration(i64),
    Text(Str),
    Attribute(Attribute),
    /// Whether the request has the attribute.
    Has(Attribute),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    /// Condition, then, else.
    If(Box<[Node; 3]>),
    Compare(Comparison, Box<[Node; 2]>),
    Calculate(Calculation, Box<[Node; 2]>),
    In(Box<Node>, Vec<Node>),
    Compared(TextTest, Box<[Node; 2]>),
    Matches(Box<Node>, Regex),
    Size(Box<Node>),
    ToText(Box<Node>),
    ToInt(Box<Node>),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Calculation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

pub(super) fn compile(text: &str) -> Result<Expression, ExpressionError> {
    if text.len() > MAX_LENGTH {
        return Err(ExpressionError::Long);
    }
    let parser = Parser::new().max_recursion_depth(MAX_DEPTH).error_recovery_limit(1);
    let parsed = parser.parse(text).map_err(|errors| {
        let first = errors.errors.first().map(|error| error.msg.clone());
        ExpressionError::Syntax(first.unwrap_or_else(|| "no expression".to_owned()))
    })?;
    let mut compiler = Compiler::default();
    let root = compiler.node(&parsed.expr, 0)?;
    let Compiler { request_headers, response_headers, about_requests } = compiler;
    let written = text.into();
    Ok(Expression { root, request_headers, response_headers, about_requests, written })
}

/// Collects what the expression looks at.
#[derive(Default)]
struct Compiler {
    request_headers: Vec<HeaderName>,
    response_headers: Vec<HeaderName>,
    about_requests: bool,
}

type Compiled = Result<Node, ExpressionError>;

impl Compiler {
    fn node(&mut self, expr: &Expr, depth: u16) -> Compiled {
        // Chains of operators and of selections are deep without being nested in the text.
        let depth = depth + 1;
        if depth > 4 * MAX_DEPTH {
            return Err(unsupported("an expression so deep"));
        }
        match expr {
            Expr::Literal(literal) => constant(literal),
            Expr::Ident(_) | Expr::Select(_) => self.attribute(expr),
            Expr::Call(call) => self.call(call, depth),
            Expr::List(_) => Err(unsupported("a list, except after `in`,")),
            Expr::Comprehension(_) => {
                Err(unsupported("a macro with a variable (all, exists, map, filter)"))
            }
            Expr::Map(_) | Expr::Struct(_) => Err(unsupported("a map")),
            Expr::Unspecified => Err(ExpressionError::Syntax("no expression".to_owned())),
        }
    }

    /// An attribute by its name, a header by its selection, or `has` of one.
    fn attribute(&mut self, expr: &Expr) -> Compiled {
        let Some((names, is_test)) = names(expr) else {
            return Err(unsupported("a field of what is not an attribute"));
        };
        let attribute = match &names[..] {
            [side @ ("request" | "response"), "headers", header] => self.header(side, header)?,
            _ => {
                let name = names.join(".");
                let known = Attribute::named(&name).ok_or(ExpressionError::Attribute(name))?;
                self.of_header(known)
            }
        };
        self.about_requests |= !attribute.is_of_connections();
        Ok(if is_test { Node::Has(attribute) } else { Node::Attribute(attribute) })
    }

    /// Attributes that are headers by another name.
    fn of_header(&mut self, attribute: Attribute) -> Attribute {
        let name = match attribute {
            Attribute::UserAgent => USER_AGENT,
            Attribute::Referer => REFERER,
            Attribute::RequestId => REQUEST_ID,
            other => return other,
        };
        Attribute::RequestHeader(place(&mut self.request_headers, name))
    }

    fn header(&mut self, side: &str, name: &str) -> Result<Attribute, ExpressionError> {
        self.about_requests = true;
        let header = HeaderName::try_from(name)
            .map_err(|_| ExpressionError::Attribute(format!("{side}.headers[{name:?}]")))?;
        Ok(match side {
            "request" => Attribute::RequestHeader(place(&mut self.request_headers, header)),
            _ => Attribute::ResponseHeader(place(&mut self.response_headers, header)),
        })
    }

    fn call(&mut self, call: &CallExpr, depth: u16) -> Compiled {
        let CallExpr { func_name, target, args } = call;
        let args: Vec<&Expr> =
            target.iter().map(|it| &it.expr).chain(args.iter().map(|it| &it.expr)).collect();
        match (func_name.as_str(), &args[..]) {
            (operators::INDEX, [of, key]) => self.index(of, key),
            (operators::IN, [what, within]) => self.within(what, within, depth),
            (operators::CONDITIONAL, [condition, then, otherwise]) => {
                let parts = [condition, then, otherwise].map(|it| self.node(it, depth));
                let [condition, then, otherwise] = parts;
                Ok(Node::If(Box::new([condition?, then?, otherwise?])))
            }
            ("matches", [text, Expr::Literal(LiteralValue::String(pattern))]) => {
                let regex = Regex::anywhere(pattern.inner()).map_err(|error| match error {
                    RegexError::Budget(_) => ExpressionError::Budget(error),
                    RegexError::Unreadable(_) => {
                        ExpressionError::Pattern(pattern.inner().to_owned())
                    }
                })?;
                Ok(Node::Matches(Box::new(self.node(text, depth)?), regex))
            }
            ("duration", [Expr::Literal(LiteralValue::String(text))]) => {
                let read = parse_istio_duration(text.inner());
                let nanoseconds = read.and_then(|it| i64::try_from(it.as_nanos()).ok());
                let wrong = || unsupported(&format!("the duration {:?}", text.inner()));
                nanoseconds.map(Node::Duration).ok_or_else(wrong)
            }
            (name, [one]) => {
                let of = Box::new(self.node(one, depth)?);
                unary(name, of).ok_or_else(|| unsupported(&format!("the function {name}")))
            }
            (name, [one, two]) => {
                let of = Box::new([self.node(one, depth)?, self.node(two, depth)?]);
                binary(name, of).ok_or_else(|| unsupported(&format!("the function {name}")))
            }
            (name, _) => {
                Err(unsupported(&format!("the function {name} with {} arguments", args.len())))
            }
        }
    }

    /// `request.headers["x"]`
    fn index(&mut self, of: &Expr, key: &Expr) -> Compiled {
        match (names(of).as_ref().map(|(names, _)| &names[..]), key) {
            (
                Some([side @ ("request" | "response"), "headers"]),
                Expr::Literal(LiteralValue::String(name)),
            ) => Ok(Node::Attribute(self.header(side, name.inner())?)),
            _ => Err(unsupported(
                "an index, except of request.headers and response.headers by a text,",
            )),
        }
    }

    /// `x in [1, 2]`, or `"x" in request.headers`.
    fn within(&mut self, what: &Expr, within: &Expr, depth: u16) -> Compiled {
        if let Expr::List(list) = within {
            let what = Box::new(self.node(what, depth)?);
            let items = list.elements.iter().map(|it| self.node(&it.expr, depth));
            return Ok(Node::In(what, items.collect::<Result<_, _>>()?));
        }
        match (what, names(within).as_ref().map(|(names, _)| &names[..])) {
            (
                Expr::Literal(LiteralValue::String(name)),
                Some([side @ ("request" | "response"), "headers"]),
            ) => Ok(Node::Has(self.header(side, name.inner())?)),
            _ => Err(unsupported("`in`, except a list or the headers,")),
        }
    }
}

fn unsupported(what: &str) -> ExpressionError {
    ExpressionError::Unsupported(what.to_owned())
}

fn constant(literal: &LiteralValue) -> Compiled {
    Ok(match literal {
        LiteralValue::Boolean(it) => Node::Bool(*it.inner()),
        LiteralValue::Int(it) => Node::Int(*it.inner()),
        LiteralValue::UInt(it) => Node::Int(i64::try_from(*it.inner()).unwrap_or(i64::MAX)),
        LiteralValue::Double(it) => Node::Double(*it.inner()),
        LiteralValue::String(it) => Node::Text(it.inner().into()),
        LiteralValue::Bytes(_) => return Err(unsupported("a literal of bytes")),
        LiteralValue::Null => return Err(unsupported("null")),
    })
}

fn unary(name: &str, of: Box<Node>) -> Option<Node> {
    Some(match name {
        operators::LOGICAL_NOT => Node::Not(of),
        operators::NEGATE => Node::Negate(of),
        "size" => Node::Size(of),
        "string" => Node::ToText(of),
        "int" => Node::ToInt(of),
        _ => return None,
    })
}

fn binary(name: &str, of: Box<[Node; 2]>) -> Option<Node> {
    if let Some(how) = comparison(name) {
        return Some(Node::Compare(how, of));
    }
    if let Some(how) = calculation(name) {
        return Some(Node::Calculate(how, of));
    }
    Some(match name {
        operators::LOGICAL_AND => Node::And(of),
        operators::LOGICAL_OR => Node::Or(of),
        "startsWith" => Node::Compared(TextTest::StartsWith, of),
        "endsWith" => Node::Compared(TextTest::EndsWith, of),
        "contains" => Node::Compared(TextTest::Contains, of),
        _ => return None,
    })
}

fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        operators::EQUALS => Comparison::Equal,
        operators::NOT_EQUALS => Comparison::NotEqual,
        operators::LESS => Comparison::Less,
        operators::LESS_EQUALS => Comparison::LessOrEqual,
        operators::GREATER => Comparison::Greater,
        operators::GREATER_EQUALS => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

fn calculation(name: &str) -> Option<Calculation> {
    Some(match name {
        operators::ADD => Calculation::Add,
        operators::SUBSTRACT => Calculation::Subtract,
        operators::MULTIPLY => Calculation::Multiply,
        operators::DIVIDE => Calculation::Divide,
        operators::MODULO => Calculation::Remainder,
        _ => return None,
    })
}

/// The names of a selection, root first, and whether it is a test of presence (`has`).
fn names(expr: &Expr) -> Option<(Vec<&str>, bool)> {
    let is_test = matches!(expr, Expr::Select(select) if select.test);
    let (mut names, mut expr) = (Vec::new(), expr);
    loop {
        match expr {
            Expr::Ident(name) => {
                names.push(name.as_str());
                names.reverse();
                return Some((names, is_test));
            }
            Expr::Select(select) => {
                names.push(select.field.as_str());
                expr = &select.operand.expr;
            }
            _ => return None,
        }
    }
}

/// The index of a header in a list; appends it if it is new.
fn place(headers: &mut Vec<HeaderName>, name: HeaderName) -> usize {
    headers.iter().position(|known| *known == name).unwrap_or_else(|| {
        headers.push(name);
        headers.len() - 1
    })
}
