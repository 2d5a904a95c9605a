//! From the table of filters to the types that others use.

/// One row a filter; the front file says what stands in it.
macro_rules! filters {
    (
        routes {
            $($variant:ident($type:ty): $name:literal, $field:literal, $on:expr, $often:ident, $never:expr;)*
        }
        policies { $($policy:ident($policy_type:ty): $policy_field:literal;)* }
        virtual_services { $($virtual:ident($virtual_type:ty): $virtual_field:literal;)* }
    ) => {
        /// The filters of routes, in the order of the table. Gateway API defines their types.
        pub const ROWS: &[Row] = &[$(Row {
            name: $name,
            field: $field,
            on: &$on,
            often: Often::$often,
            never_beside: &$never,
            answers: <$type as Filter>::ANSWERS,
            half: <$type as Filter>::HALF,
        },)*];

        /// The values that the API server accepts, by field.
        pub const SCHEMAS: &[(&str, schema::Rule)] = &[$(($field, <$type as Filter>::SCHEMA),)*];

        // Filters of a Service, a Gateway or a class have `request` and `response`: the destination, which would have to
        // compute a change again, does not know which of them ran.
        $(const _: () = assert!(!<$policy_type as Filter>::CHANGES, "filters of policies change nothing");)*

        /// The same for TrafficPolicies.
        pub const POLICY_SCHEMAS: &[(&str, schema::Rule)] =
            &[$(($policy_field, <$policy_type as Filter>::SCHEMA),)*];

        /// The same for the rules of VirtualServices.
        pub const VIRTUAL_SCHEMAS: &[(&str, schema::Rule)] =
            &[$(($virtual_field, <$virtual_type as Filter>::SCHEMA),)*];

        /// A filter of a rule, a backend or a policy.
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
        pub enum HttpFilter { $($variant($type),)* $($policy($policy_type),)*
            $($virtual($virtual_type),)*
        }

        /// The spec of a TrafficPolicy as it is written.
        #[derive(Clone, Debug, serde::Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        #[expect(non_snake_case, reason = "the fields are named as the variants")]
        pub struct PolicySpec {
            pub target_refs: Vec<PolicyTarget>,
            $(#[serde(default, rename = $policy_field)]
            $policy: Option<<$policy_type as Filter>::Manifest>,)*
        }

        impl PolicySpec {
            /// The policy's filters; a fault comes with the filter's field.
            pub fn filters(
                &self,
                policy: &dyn RuleContext,
            ) -> Vec<Result<HttpFilter, (&'static str, Fault)>> {
                let mut filters = Vec::new();
                $(if let Some(written) = &self.$policy {
                    let read = <$policy_type as Filter>::read(written, policy);
                    filters.push(read.map(HttpFilter::$policy).map_err(|it| ($policy_field, it)));
                })*
                filters
            }
        }

        /// One entry of `filters` as it is written.
        #[derive(Clone, Debug)]
        pub enum Manifest {
            $($variant(Box<<$type as Filter>::Manifest>),)*
            /// An unsupported type; its fields are not read.
            Unsupported(String),
        }

        impl HttpFilter {
            pub fn request(&self, head: &mut RequestHead<'_>, cx: &Cx<'_>) -> Flow {
                match self {
                    $(Self::$variant(filter) => filter.request(head, cx),)*
                    $(Self::$policy(filter) => filter.request(head, cx),)*
                    $(Self::$virtual(filter) => filter.request(head, cx),)*
                }
            }

            /// Its field in the manifest.
            pub fn field(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $field,)*
                    $(Self::$policy(_) => $policy_field,)*
                    $(Self::$virtual(_) => $virtual_field,)*
                }
            }

            fn changes(&self) -> bool {
                match self {
                    $(Self::$variant(_) => <$type as Filter>::CHANGES,)*
                    $(Self::$policy(_) => <$policy_type as Filter>::CHANGES,)*
                    $(Self::$virtual(_) => <$virtual_type as Filter>::CHANGES,)*
                }
            }

            /// The half that calls [`HttpFilter::request`].
            pub fn half(&self) -> Half {
                match self {
                    $(Self::$variant(_) => <$type as Filter>::HALF,)*
                    $(Self::$policy(_) => <$policy_type as Filter>::HALF,)*
                    $(Self::$virtual(_) => <$virtual_type as Filter>::HALF,)*
                }
            }

            fn change(&self, uri: &mut Uri, headers: &mut HeaderMap) {
                match self {
                    $(Self::$variant(filter) => filter.change(uri, headers),)*
                    $(Self::$policy(filter) => filter.change(uri, headers),)*
                    $(Self::$virtual(filter) => filter.change(uri, headers),)*
                }
            }

            fn remembers(&self) -> Option<HeaderName> {
                match self {
                    $(Self::$variant(filter) => filter.remembers(),)*
                    $(Self::$policy(filter) => filter.remembers(),)*
                    $(Self::$virtual(filter) => filter.remembers(),)*
                }
            }

            fn response(&self, head: &mut ResponseHead<'_>, seen: &Seen) {
                match self {
                    $(Self::$variant(filter) => filter.response(head, seen),)*
                    $(Self::$policy(filter) => filter.response(head, seen),)*
                    $(Self::$virtual(filter) => filter.response(head, seen),)*
                }
            }

            /// See [`Filter::reads_claims`].
            pub fn reads_claims(&self) -> bool {
                match self {
                    $(Self::$variant(filter) => filter.reads_claims(),)*
                    $(Self::$policy(filter) => filter.reads_claims(),)*
                    $(Self::$virtual(filter) => filter.reads_claims(),)*
                }
            }

            fn volatile(&self) -> &[HeaderName] {
                match self {
                    $(Self::$variant(filter) => filter.volatile(),)*
                    $(Self::$policy(filter) => filter.volatile(),)*
                    $(Self::$virtual(filter) => filter.volatile(),)*
                }
            }

            /// Takes over the state of the previous filter at this place, if it has the same type.
            fn inherit(&mut self, before: &Self) {
                match (self, before) {
                    $((Self::$variant(filter), Self::$variant(before)) => filter.inherit(before),)*
                    $((Self::$policy(filter), Self::$policy(before)) => filter.inherit(before),)*
                    $((Self::$virtual(filter), Self::$virtual(before)) => filter.inherit(before),)*
                    _ => {}
                }
            }
        }

        impl Manifest {
            /// `None`: it is not supported.
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

        /// Read, with their fields.
        #[cfg(test)]
        fn virtual_samples(rule: &dyn RuleContext) -> Vec<(&'static str, HttpFilter)> {
            let mut all = Vec::new();
            $(for sample in <$virtual_type as Filter>::samples() {
                schema::judge(&<$virtual_type as Filter>::SCHEMA, Some(&sample), "").unwrap();
                let written = serde_json::from_value(sample).unwrap();
                let read = <$virtual_type as Filter>::read(&written, rule).unwrap();
                all.push(($virtual_field, HttpFilter::$virtual(read)));
            })*
            all
        }

        #[cfg(test)]
        fn policy_samples() -> Vec<(&'static str, serde_json::Value)> {
            let mut samples = Vec::new();
            $(samples.extend(<$policy_type as Filter>::samples().into_iter().map(|it| ($policy_field, it)));)*
            samples
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
