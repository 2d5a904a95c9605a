//! From the table of filters to the types that others use.

/// One row a filter; the front file says what stands in it.
macro_rules! filters {
    ($($variant:ident($type:ty): $name:literal, $field:literal, $on:expr, $often:ident, $never:expr;)*) => {
        /// What may stand in a route, in the order of the table.
        pub const ROWS: &[Row] = &[$(Row {
            name: $name,
            field: $field,
            on: &$on,
            often: Often::$often,
            never_beside: &$never,
            answers: <$type as Filter>::ANSWERS,
        },)*];

        /// What the API server takes, by field.
        pub const SCHEMAS: &[(&str, schema::Rule)] = &[$(($field, <$type as Filter>::SCHEMA),)*];

        /// What a rule or a backend does to a request or a response, in the order of the route.
        #[derive(Clone, Debug, serde::Serialize)]
        pub enum HttpFilter { $($variant($type),)* }

        /// One entry of `filters` as it is written.
        #[derive(Clone, Debug)]
        pub enum Manifest {
            $($variant(Box<<$type as Filter>::Manifest>),)*
            /// Of a type that is not carried out. Its fields are not read.
            Unsupported(String),
        }

        impl HttpFilter {
            pub fn request(&self, head: &mut RequestHead<'_>, cx: &Cx) -> Flow {
                match self { $(Self::$variant(filter) => filter.request(head, cx),)* }
            }

            fn changes(&self) -> bool {
                match self { $(Self::$variant(_) => <$type as Filter>::CHANGES,)* }
            }

            fn change(&self, uri: &mut Uri, headers: &mut HeaderMap) {
                match self { $(Self::$variant(filter) => filter.change(uri, headers),)* }
            }

            fn remembers(&self) -> Option<HeaderName> {
                match self { $(Self::$variant(filter) => filter.remembers(),)* }
            }

            fn response(&self, headers: &mut HeaderMap, seen: &Seen) {
                match self { $(Self::$variant(filter) => filter.response(headers, seen),)* }
            }

            fn volatile(&self) -> &[HeaderName] {
                match self { $(Self::$variant(filter) => filter.volatile(),)* }
            }

            /// Takes over the state of the filter that stood here before, where that is of the same type.
            pub fn inherit(&mut self, before: &Self) {
                match (self, before) {
                    $((Self::$variant(filter), Self::$variant(before)) => filter.inherit(before),)*
                    _ => {}
                }
            }
        }

        impl Manifest {
            /// `None`: it is not carried out.
            pub fn row(&self) -> Option<&'static Row> {
                match self {
                    $(Self::$variant(_) => Row::named($name),)*
                    Self::Unsupported(_) => None,
                }
            }

            pub fn read(&self, rule: &dyn RuleContext) -> Result<HttpFilter, Fault> {
                match self {
                    $(Self::$variant(written) => {
                        <$type as Filter>::read(written, rule).map(HttpFilter::$variant)
                    })*
                    Self::Unsupported(kind) => {
                        let why = format!("{kind:?} is not supported");
                        Err(Fault::Rule { field: "type", why })
                    }
                }
            }
        }

        impl<'de> serde::Deserialize<'de> for Manifest {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                #[derive(serde::Deserialize)]
                #[serde(deny_unknown_fields)]
                #[expect(non_snake_case, reason = "the fields are named as the variants")]
                struct Written {
                    #[serde(rename = "type")]
                    kind: String,
                    $(#[serde(default, rename = $field)]
                    $variant: Option<<$type as Filter>::Manifest>,)*
                    #[serde(default, rename = "externalAuth")]
                    _external_auth: serde::de::IgnoredAny,
                    #[serde(default, rename = "extensionRef")]
                    _extension_ref: serde::de::IgnoredAny,
                }
                let written = Written::deserialize(from)?;
                match written.kind.as_str() {
                    $($name => match written.$variant {
                        Some(filter) => Ok(Self::$variant(Box::new(filter))),
                        None => Err(serde::de::Error::custom(concat!(
                            "a filter of type ", $name, " needs the field ", $field
                        ))),
                    },)*
                    kind => Ok(Self::Unsupported(kind.to_owned())),
                }
            }
        }

        #[cfg(test)]
        fn samples() -> Vec<(&'static Row, serde_json::Value)> {
            let rows = ROWS.iter();
            rows.zip([$(<$type as Filter>::samples(),)*])
                .flat_map(|(row, samples)| samples.into_iter().map(move |it| (row, it)))
                .collect()
        }
    };
}

pub(super) use filters;
