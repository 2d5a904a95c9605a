//! The files that Kubernetes replaces while the agent runs: read at each use, never kept.

use std::path::Path;

use tokio::io::AsyncReadExt;
use tonic::metadata::AsciiMetadataValue;

/// More than any token or bundle needs; keeps a wrong path from filling the memory.
const MAX_FILE: u64 = 1024 * 1024;

/// The proof of who asks. It is in no message and no log.
pub(super) struct Token(String);

impl Token {
    /// The token of the file, as it is now: a projected token is replaced long before it expires.
    pub(super) async fn read(path: &Path) -> Result<Self, String> {
        let unusable = |why: &str| format!("the token in {} cannot be used: {why}", path.display());
        let bytes = read(path).await.map_err(|why| unusable(&why))?;
        let text = String::from_utf8(bytes).map_err(|_| unusable("it is not text"))?;
        let text = text.trim();
        if text.is_empty() {
            return Err(unusable("the file is empty"));
        }
        // A JWT is base64url and dots (RFC 7515, 3.1); anything else means another file.
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(unusable("it is not one word, as a token is"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The value of `authorization`, which the HTTP library does not print.
    pub(super) fn bearer(&self) -> Result<AsciiMetadataValue, String> {
        let mut value = AsciiMetadataValue::try_from(format!("Bearer {}", self.0))
            .map_err(|_| "the token cannot be sent in a header".to_owned())?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Takes the token out of a text that the server wrote.
    pub(super) fn redact(&self, text: &str) -> String {
        text.replace(&self.0, "(the token)")
    }
}

/// A small file's bytes.
pub(super) async fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = tokio::fs::File::open(path).await.map_err(|error| error.to_string())?;
    file.take(MAX_FILE).read_to_end(&mut bytes).await.map_err(|error| error.to_string())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_token_is_not_printed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a.secret.token\n").unwrap();
        let token = Token::read(file.path()).await.unwrap();
        let value = token.bearer().unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer a.secret.token");
        let mut request = tonic::Request::new(());
        request.metadata_mut().insert("authorization", value);
        assert!(!format!("{request:?}").contains("secret"), "{request:?}");
        assert_eq!(token.redact("bad a.secret.token!"), "bad (the token)!");
    }
}
