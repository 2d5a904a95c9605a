//! Frames of a body that can be had again.

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

/// A frame that can be had again.
#[derive(Clone)]
pub(super) enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Part {
    pub(super) fn of(frame: &Frame<Bytes>) -> Option<Self> {
        let trailers = || frame.trailers_ref().cloned().map(Part::Trailers);
        frame.data_ref().cloned().map(Part::Data).or_else(trailers)
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Part::Data(data) => data.len(),
            Part::Trailers(trailers) => {
                trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
            }
        }
    }
}

impl From<Part> for Frame<Bytes> {
    fn from(part: Part) -> Self {
        match part {
            Part::Data(data) => Frame::data(data),
            Part::Trailers(trailers) => Frame::trailers(trailers),
        }
    }
}
