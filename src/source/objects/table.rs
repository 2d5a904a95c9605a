//! The form of the table of kinds.

/// One row a kind: its variant, which is also its name; the type that it is read as; the type of its spec, if `config/crds`
/// defines it; and its [`Row`](super::row::Row).
macro_rules! kinds {
    ($($kind:ident: $type:ty $(, spec $spec:ty)? = $row:expr;)*) => {
        /// The kinds that are understood.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        pub enum Kind { $($kind,)* }

        /// An object of one of these kinds.
        #[derive(Clone, Debug)]
        pub enum Object { $($kind(Box<$type>),)* }

        impl Kind {
            /// All kinds.
            pub fn all() -> impl Iterator<Item = Kind> {
                [$(Kind::$kind,)*].into_iter()
            }

            pub fn name(self) -> &'static str {
                match self { $(Kind::$kind => stringify!($kind),)* }
            }

            /// Its row of the table.
            pub fn row(self) -> &'static Row {
                match self {
                    $(Kind::$kind => {
                        static ROW: Row = $row;
                        &ROW
                    })*
                }
            }

            /// Reads `value` as an object of this kind.
            pub fn read(self, value: &Value) -> Result<Object, FieldError> {
                metered(REGEXES_OF_OBJECT, || match self {
                    $(Kind::$kind => read::<$type>(value).map(|it| Object::$kind(Box::new(it))),)*
                })
            }

            /// Asks something of the type of the spec; `None` for a kind without a definition of ours.
            pub fn with_spec<A: OfSpec>(self, ask: A) -> Option<A::Answer> {
                match self {
                    $($(Kind::$kind => Some(ask.of::<$spec>()),)?)*
                    _ => None,
                }
            }
        }

        impl Object {
            pub fn kind(&self) -> Kind {
                match self { $(Object::$kind(_) => Kind::$kind,)* }
            }

            /// The key, with the default namespace filled in.
            pub fn key(&self) -> ObjectKey {
                match self {
                    $(Object::$kind(object) => {
                        let metadata = &object.metadata;
                        key_of(Kind::$kind, metadata.namespace.as_deref(), metadata.name.as_deref())
                    })*
                }
            }
        }

        impl Labelled for Object {
            fn labels(&self) -> Option<&Labels> {
                match self { $(Object::$kind(object) => Labelled::labels(&**object),)* }
            }

            fn annotations(&self) -> Option<&Labels> {
                match self { $(Object::$kind(object) => Labelled::annotations(&**object),)* }
            }
        }

        $(impl Typed for $type {
            const KIND: Kind = Kind::$kind;

            fn of(object: &Object) -> Option<&Self> {
                match object {
                    Object::$kind(object) => Some(object),
                    _ => None,
                }
            }

            fn name(&self) -> Option<&str> {
                self.metadata.name.as_deref()
            }
        })*
    };
}

pub(super) use kinds;
