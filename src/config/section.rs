//! `section!` makes a section of the file from its rows. A row states everything about a setting, and nothing else does:
//!
//! ```text
//! /// The meaning, for operators: docs/settings.md and config/agent.toml show it.
//! max_streams: usize = 100, number(1..=1_000),
//!     because "The reason for this default; docs/settings.md shows it.";
//! ```
//!
//! This becomes the field `max_streams` of the section's struct, and a call of [`Reader::number`](super::reader::Reader)
//! with the key, the default, the meaning and the bounds. The methods of the reader are the kinds of settings that there are.
//!
//! The room that a section is for takes the struct as it is, so that nothing lists its settings again.

macro_rules! section {
    (
        $(#[$about:meta])*
        pub struct $Section:ident in $prefix:literal {
            $(
                $(#[doc = $meaning:literal])+
                $key:ident: $Type:ty = $default:expr, $kind:ident($($bound:expr),* $(,)?),
                    because $reason:literal;
            )+
            $( .. $part:ident: $Part:ty, )*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
        pub struct $Section {
            $(
                $(#[doc = $meaning])+
                #[serde(serialize_with = "crate::config::duration::serialize")]
                pub $key: $Type,
            )+
            $( pub $part: $Part, )*
        }

        impl Default for $Section {
            /// Without a file and without flags.
            fn default() -> Self {
                let overrides = crate::config::Overrides::default();
                Self::read(&mut crate::config::reader::Reader::new("", &overrides))
            }
        }

        impl $Section {
            /// What is wrong is kept in the reader, with the default in its place.
            pub(in crate::config) fn read(reader: &mut crate::config::reader::Reader<'_>) -> Self {
                Self {
                    $(
                        $key: reader.$kind(
                            crate::config::reader::Field {
                                key: concat!($prefix, stringify!($key)),
                                default: $default,
                                meaning: concat!($($meaning),+).trim_ascii_start(),
                                reason: $reason,
                            },
                            $($bound),*
                        ),
                    )+
                    $( $part: <$Part>::read(reader), )*
                }
            }
        }
    };
}
