//! Profiles that an agent gives, as far as tests look at them.

#![allow(dead_code, reason = "the suites use different parts")]

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};

/// What of `profile.proto` a test looks at.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Profile {
    #[prost(message, repeated, tag = "1")]
    pub sample_types: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
    #[prost(string, repeated, tag = "6")]
    pub strings: Vec<String>,
}

/// Places in the table of strings.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ValueType {
    #[prost(int64, tag = "1")]
    pub kind: i64,
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    pub locations: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    pub values: Vec<i64>,
}

impl Profile {
    /// Unpacks and reads a file that curl has written.
    pub fn read(path: &Path) -> Result<Self> {
        let file = std::fs::File::open(path)?;
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).context("not gzip'd")?;
        Ok(prost::Message::decode(bytes.as_slice())?)
    }

    pub fn kind(&self) -> (&str, &str) {
        let text = |index: i64| self.strings[index as usize].as_str();
        (text(self.sample_types[0].kind), text(self.sample_types[0].unit))
    }

    pub fn total(&self) -> i64 {
        self.samples.iter().flat_map(|sample| &sample.values).sum()
    }

    /// A function of ours is named in it.
    pub fn names_functions(&self) -> bool {
        self.strings
            .iter()
            .any(|text| text.starts_with("isthmus::") || text.starts_with("<isthmus::"))
    }
}
