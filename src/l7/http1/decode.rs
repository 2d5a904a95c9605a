//! Where a body ends, and what of it is data (RFC 9112, 6 and 7): a state machine over whatever pieces come.

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::error::Error;
use crate::l7::budget::sizes::HTTP1_BUFFER;

/// How much extensions of chunks may take in one body, in bytes. Nobody uses them.
const MOST_EXTENSIONS: u16 = 16 * 1024;

/// The longest trailers, in bytes.
const LONGEST_TRAILERS: usize = HTTP1_BUFFER;

/// How a body is read.
#[derive(Debug)]
pub(in crate::l7) enum Decoder {
    /// So many bytes are to come.
    Length(u64),
    Chunked(Chunked),
    /// To the end of the connection.
    Close,
}

/// A part of a body.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::l7) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// A body in chunks. Small, because every request and every response with one holds it.
#[derive(Debug)]
pub(in crate::l7) struct Chunked {
    state: State,
    /// Of the chunk.
    left: u64,
    extensions: u16,
    /// Boxed, because few bodies have any.
    trailers: Option<Box<Lines>>,
    most_lines: u16,
}

/// Trailers as they come.
#[derive(Debug, Default)]
struct Lines {
    text: Vec<u8>,
    count: u16,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The first digit of a size.
    Start,
    Size,
    /// Blanks after a size.
    Blanks,
    Extension,
    /// The LF that ends the line of a size.
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// The first byte of a line of trailers, or the CR of the end.
    Line,
    Trailer,
    TrailerLf,
    EndLf,
    /// All has come; the trailers are not passed on yet.
    Trailers,
    Over,
    /// It broke the rules, which is told once the data before that has passed.
    Broken(Fault),
}

/// What is wrong with chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    TooLarge,
    NoSize,
    NoNumber,
    ExtensionLine,
    Extensions,
    Size,
    TrailerLine,
    Lines,
    Line,
    Trailers,
    NoField,
}

impl Fault {
    fn text(self) -> &'static str {
        match self {
            Self::TooLarge => "the size of a chunk is beyond 64 bits",
            Self::NoSize => "the size of a chunk is missing",
            Self::NoNumber => "the size of a chunk is no number",
            Self::ExtensionLine => "an extension of a chunk has a line's end",
            Self::Extensions => "the extensions of chunks are too long",
            Self::Size => "a chunk is longer than its size",
            Self::TrailerLine => "a trailer has a bare LF",
            Self::Lines => "there are too many trailers",
            Self::Line => "a line ends without CR LF",
            Self::Trailers => "the trailers are too long",
            Self::NoField => "a trailer is no field",
        }
    }
}

impl Decoder {
    /// `most_lines`: as many fields may the trailers have.
    pub(super) fn chunked(most_lines: usize) -> Self {
        let most_lines = u16::try_from(most_lines).unwrap_or(u16::MAX - 1);
        let (state, trailers) = (State::Start, None);
        Self::Chunked(Chunked { state, left: 0, extensions: 0, trailers, most_lines })
    }

    /// All has passed.
    pub(in crate::l7) fn is_over(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.state == State::Over,
            Self::Close => false,
        }
    }

    /// How much is to come, where that is known.
    pub(in crate::l7) fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(chunked) => (chunked.state == State::Over).then_some(0),
            Self::Close => None,
        }
    }

    /// How much data comes at least before anything else.
    pub(super) fn wanted(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::Chunked(chunked) => chunked.left,
            Self::Close => 0,
        }
    }

    /// Takes what it can use from the front of `input`. `None`: it is over, or more must come, for which all of `input` was used.
    pub(in crate::l7) fn next(&mut self, input: &mut Bytes) -> Result<Option<Piece>, Error> {
        match self {
            Self::Length(left) => Ok(take(input, left).map(Piece::Data)),
            Self::Chunked(chunked) => chunked.next(input),
            Self::Close => {
                let data = std::mem::take(input);
                Ok((!data.is_empty()).then_some(Piece::Data(data)))
            }
        }
    }

    /// Nothing more comes. Whether the body is whole.
    pub(in crate::l7) fn end(&mut self) -> Result<(), Error> {
        match self {
            Self::Close => {
                *self = Self::Length(0);
                Ok(())
            }
            it if it.is_over() => Ok(()),
            _ => Err(Error::Cut),
        }
    }
}

/// Takes as much as there is of what is left.
fn take(input: &mut Bytes, left: &mut u64) -> Option<Bytes> {
    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    if taken == 0 {
        return None;
    }
    *left -= taken as u64;
    // The whole of it without a count of who has it.
    Some(if taken == input.len() { std::mem::take(input) } else { input.split_to(taken) })
}

impl Chunked {
    fn next(&mut self, input: &mut Bytes) -> Result<Option<Piece>, Error> {
        self.skip(input);
        match self.state {
            State::Data => {
                let data = take(input, &mut self.left);
                if data.is_some() && self.left == 0 {
                    self.state = State::DataCr;
                    // So that whoever gets the last data knows that it is the last.
                    self.skip(input);
                }
                Ok(data.map(Piece::Data))
            }
            State::Trailers => {
                let lines = self.trailers.take().unwrap_or_default();
                let fields = fields(&lines.text, lines.count.into());
                // Never over after a fault: nobody may take what follows for the next request.
                self.state =
                    fields.as_ref().map_or_else(|fault| State::Broken(*fault), |_| State::Over);
                fields
                    .map(|fields| Some(Piece::Trailers(fields)))
                    .map_err(|it| Error::Framing(it.text()))
            }
            State::Broken(fault) => Err(Error::Framing(fault.text())),
            _ => Ok(None),
        }
    }

    /// Takes what is no data.
    fn skip(&mut self, input: &mut Bytes) {
        let mut used = 0;
        for byte in input.iter() {
            if matches!(self.state, State::Data | State::Trailers | State::Over | State::Broken(_))
            {
                break;
            }
            self.state = self.step(*byte).unwrap_or_else(State::Broken);
            used += 1;
        }
        input.advance(used);
        if input.is_empty() {
            // An empty part of a buffer would hold all of it.
            *input = Bytes::new();
        }
    }

    fn step(&mut self, byte: u8) -> Result<State, Fault> {
        Ok(match (self.state, byte) {
            (State::Start | State::Size, byte) if byte.is_ascii_hexdigit() => {
                self.left = larger(self.left, byte).ok_or(Fault::TooLarge)?;
                State::Size
            }
            (State::Start, _) => return Err(Fault::NoSize),
            (State::Size | State::Blanks, b' ' | b'\t') => State::Blanks,
            (State::Size | State::Blanks, b';') => State::Extension,
            (State::Size | State::Blanks | State::Extension, b'\r') => State::SizeLf,
            (State::Size | State::Blanks, _) => return Err(Fault::NoNumber),
            (State::Extension, b'\n') => return Err(Fault::ExtensionLine),
            (State::Extension, _) => {
                self.extensions += 1;
                if self.extensions >= MOST_EXTENSIONS {
                    return Err(Fault::Extensions);
                }
                State::Extension
            }
            (State::SizeLf, b'\n') if self.left == 0 => State::Line,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Start,
            (State::DataCr | State::DataLf, _) => return Err(Fault::Size),
            (State::Line, b'\r') => State::EndLf,
            (State::EndLf, b'\n') if self.trailers.is_none() => State::Over,
            (State::EndLf, b'\n') => State::Trailers,
            (State::Line | State::Trailer, b'\n') => return Err(Fault::TrailerLine),
            (State::Line | State::Trailer, byte) => {
                self.trailer(byte)?;
                if byte == b'\r' { State::TrailerLf } else { State::Trailer }
            }
            (State::TrailerLf, b'\n') => {
                let most = self.most_lines;
                let lines = self.trailer(byte)?;
                lines.count += 1;
                if lines.count > most {
                    return Err(Fault::Lines);
                }
                State::Line
            }
            _ => return Err(Fault::Line),
        })
    }

    fn trailer(&mut self, byte: u8) -> Result<&mut Lines, Fault> {
        let trailers = self.trailers.get_or_insert_default();
        if trailers.text.len() >= LONGEST_TRAILERS {
            return Err(Fault::Trailers);
        }
        trailers.text.push(byte);
        Ok(trailers)
    }
}

/// The number with one digit more.
fn larger(number: u64, digit: u8) -> Option<u64> {
    let digit = char::from(digit).to_digit(16)?;
    number.checked_mul(16)?.checked_add(u64::from(digit))
}

/// The fields of so many lines.
fn fields(lines: &[u8], count: usize) -> Result<HeaderMap, Fault> {
    let mut space = vec![httparse::EMPTY_HEADER; count];
    let lines = [lines, b"\r\n"].concat();
    let Ok(httparse::Status::Complete((_, parsed))) = httparse::parse_headers(&lines, &mut space)
    else {
        return Err(Fault::NoField);
    };
    let mut fields = HeaderMap::with_capacity(count);
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(field.value)) else {
            return Err(Fault::NoField);
        };
        fields.append(name, value);
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The data, the names of the trailers, and what follows the body; or why there is none.
    fn read(
        mut decoder: Decoder,
        pieces: &[&[u8]],
    ) -> Result<(String, Vec<String>, String), String> {
        let (mut data, mut names, mut rest) = (Vec::new(), Vec::new(), Vec::new());
        for piece in pieces {
            let mut input = Bytes::copy_from_slice(piece);
            while let Some(piece) = decoder.next(&mut input).map_err(|error| error.to_string())? {
                match piece {
                    Piece::Data(bytes) => data.extend(bytes),
                    Piece::Trailers(trailers) => {
                        names.extend(trailers.keys().map(|it| it.to_string()))
                    }
                }
            }
            assert!(decoder.is_over() || input.is_empty(), "more is asked for before all is used");
            rest.extend(input);
        }
        decoder.end().map_err(|error| error.to_string())?;
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ok((text(data), names, text(rest)))
    }

    fn chunked(body: &str) -> Result<(String, Vec<String>, String), String> {
        read(Decoder::chunked(3), &[body.as_bytes()])
    }

    #[test]
    fn chunks_are_data_with_trailers_after_them() {
        let whole = |data: &str, names: &[&str], rest: &str| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            Ok((data.to_owned(), names, rest.to_owned()))
        };
        assert_eq!(chunked("0\r\n\r\n"), whole("", &[], ""));
        assert_eq!(
            chunked("3\r\nabc\r\n00a\r\n0123456789\r\n0\r\n\r\nGET"),
            whole("abc0123456789", &[], "GET")
        );
        assert_eq!(chunked("3;a=b\r\nabc\r\n0 ;x\r\n\r\n"), whole("abc", &[], ""));
        assert_eq!(
            chunked("1\r\na\r\n0\r\nX-A: 1\r\nb: 2\r\n\r\n."),
            whole("a", &["x-a", "b"], ".")
        );
    }

    #[test]
    fn what_breaks_the_rules_is_no_body() {
        for body in [
            "zz\r\n",
            "\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x3\r\n",
            " 3\r\nabc\r\n0\r\n\r\n",
            "3\nabc\n0\n\n",
            "3\r\nabcXX0\r\n\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "fffffffffffffffff\r\n",
            "1 2\r\n",
            "3\rabc",
            "3;a\nb\r\nabc\r\n0\r\n\r\n",
            "0\r\n\n",
            "0\n\r\n",
            "0\r\nx: y\n\r\n",
            "0\r\n: y\r\n\r\n",
            "0\r\nx y: z\r\n\r\n",
            "0\r\na: 1\r\n fold\r\n\r\n",
            "0\r\nx\r\n\r\n",
            "0\r\na: 1\r\nb: 1\r\nc: 1\r\nd: 1\r\n\r\n",
            "0\r\na: 1\0\r\n\r\n",
            "0\r\na: 1\rb\r\n\r\n",
        ] {
            assert!(chunked(body).unwrap_err().starts_with("the body is not framed"), "{body:?}");
        }
        let long = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(MOST_EXTENSIONS as usize));
        assert!(chunked(&long).is_err());
        let long = format!("0\r\na: {}\r\n\r\n", "x".repeat(LONGEST_TRAILERS));
        assert!(chunked(&long).is_err());
        for body in ["", "3", "3\r\nab", "3\r\nabc\r\n", "0\r\n", "0\r\nx: y\r\n"] {
            assert_eq!(chunked(body), Err(Error::Cut.to_string()), "{body:?}");
        }
    }

    #[test]
    fn a_broken_body_is_never_over() {
        for body in ["0\r\nx\r\n\r\n", "0\r\na: 1\r\n fold\r\n\r\n", "zz\r\n", "0\n\r\n"] {
            let mut decoder = Decoder::chunked(3);
            let mut input = Bytes::from(format!("{body}GET / HTTP/1.1\r\n\r\n"));
            for _ in 0..2 {
                assert!(decoder.next(&mut input).is_err(), "{body:?}");
                assert!(!decoder.is_over(), "{body:?}");
            }
        }
    }

    #[test]
    fn a_length_is_kept_and_an_end_is_one_where_none_is_told() {
        let (whole, cut) = (
            |data: &str, rest: &str| Ok((data.to_owned(), vec![], rest.to_owned())),
            Err(Error::Cut.to_string()),
        );
        assert_eq!(read(Decoder::Length(3), &[b"a", b"bcd"]), whole("abc", "d"));
        assert_eq!(read(Decoder::Length(0), &[b"d"]), whole("", "d"));
        assert_eq!(read(Decoder::Length(3), &[b"ab"]), cut);
        assert_eq!(read(Decoder::Close, &[b"ab", b"c"]), whole("abc", ""));
    }

    #[test]
    fn it_stays_small() {
        assert!(size_of::<Decoder>() <= 32, "{}", size_of::<Decoder>());
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(body in "[0-9a-f;:x \r\n]{0,40}", cuts in proptest::collection::vec(0usize..40, 0..6)) {
            for body in [body.clone(), format!("2\r\nab\r\n0\r\n{body}"), format!("2\r\nab\r\n{body}\r\n0\r\n\r\n")] {
                let mut cuts: Vec<usize> = cuts.iter().map(|at| (*at).min(body.len())).collect();
                cuts.extend([0, body.len()]);
                cuts.sort_unstable();
                let pieces: Vec<&[u8]> = cuts.windows(2).map(|it| &body.as_bytes()[it[0]..it[1]]).collect();
                prop_assert_eq!(read(Decoder::chunked(3), &pieces), chunked(&body));
            }
        }
    }
}
