//! The fields that a type reads, found by letting it read: a deserializer that records its requests.

use std::collections::BTreeSet;

use serde::de::value::{BorrowedStrDeserializer, Error, StrDeserializer, UnitDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

/// What is read at one place.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    Object(Vec<Field>),
    Map(Box<Shape>),
    List(Box<Shape>),
    Choice(&'static [&'static str]),
    Text,
    Flag,
    /// With the greatest value.
    Unsigned(u64),
    /// With a fraction.
    Number,
    /// A number or a text (Kubernetes, IntOrString).
    IntOrString,
    /// Anything, or nothing that is looked at.
    Any,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub name: &'static str,
    pub required: bool,
    pub shape: Shape,
}

/// A field by its type's name and its own.
type Place = (&'static str, &'static str);

/// The shape of a type. A field is required when the type cannot be read without it.
pub fn shape_of<T: DeserializeOwned>() -> Shape {
    let mut seen = BTreeSet::new();
    let read =
        |leave_out: Option<Place>, seen: &mut BTreeSet<Place>, required: &BTreeSet<Place>| {
            let mut shape = Shape::Any;
            let tracer = Tracer { shape: &mut shape, seen, leave_out, required };
            T::deserialize(tracer).map(|_| shape)
        };
    read(None, &mut seen, &BTreeSet::new()).expect("a type that can be traced");
    let places = seen.clone();
    let is_required =
        |place: &&Place| read(Some(**place), &mut BTreeSet::new(), &BTreeSet::new()).is_err();
    let required: BTreeSet<Place> = places.iter().filter(is_required).copied().collect();
    read(None, &mut seen, &required).expect("a type that can be traced")
}

struct Tracer<'a> {
    /// Where to write it down.
    shape: &'a mut Shape,
    seen: &'a mut BTreeSet<Place>,
    /// A field to be left out.
    leave_out: Option<Place>,
    required: &'a BTreeSet<Place>,
}

impl<'a> Tracer<'a> {
    fn below<'b>(&'b mut self, shape: &'b mut Shape) -> Tracer<'b> {
        Tracer { shape, seen: self.seen, leave_out: self.leave_out, required: self.required }
    }
}

macro_rules! unsigned {
    ($($method:ident $visit:ident $type:ty;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            *self.shape = Shape::Unsigned(u64::from(<$type>::MAX));
            visitor.$visit(1)
        })*
    };
}

impl<'de> Deserializer<'de> for Tracer<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.shape = Shape::Flag;
        visitor.visit_bool(false)
    }

    unsigned! {
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.shape = Shape::Number;
        visitor.visit_f64(1.0)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        *self.shape = Shape::Text;
        visitor.visit_borrowed_str("x")
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        if name == "IntOrString" {
            *self.shape = Shape::IntOrString;
            return visitor.visit_u64(1);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        let mut items = Shape::Any;
        let value = visitor.visit_seq(Once(Some(self.below(&mut items))))?;
        *self.shape = Shape::List(Box::new(items));
        Ok(value)
    }

    fn deserialize_map<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        let mut values = Shape::Any;
        let value = visitor.visit_map(Once(Some(self.below(&mut values))))?;
        *self.shape = Shape::Map(Box::new(values));
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let mut found = Vec::new();
        let left_out = self.leave_out.filter(|(of, _)| *of == name).map(|(_, field)| field);
        let rest = fields.iter().copied().filter(|field| left_out != Some(*field)).collect();
        let value = visitor.visit_map(Fields {
            name,
            rest,
            current: "",
            tracer: &mut self,
            found: &mut found,
        })?;
        *self.shape = Shape::Object(found);
        Ok(value)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.shape = Shape::Choice(variants);
        visitor.visit_enum(First(variants[0]))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u64 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

/// A list of one item, or a map of one entry.
struct Once<'a>(Option<Tracer<'a>>);

impl<'de> SeqAccess<'de> for Once<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        self.0.take().map(|tracer| seed.deserialize(tracer)).transpose()
    }
}

impl<'de> MapAccess<'de> for Once<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let key = self.0.is_some().then(|| seed.deserialize(BorrowedStrDeserializer::new("x")));
        key.transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(self.0.take().ok_or_else(|| Error::custom("one entry"))?)
    }
}

/// All fields of a struct, one after the other.
struct Fields<'a, 'b> {
    name: &'static str,
    rest: std::collections::VecDeque<&'static str>,
    current: &'static str,
    tracer: &'a mut Tracer<'b>,
    found: &'a mut Vec<Field>,
}

impl<'de> MapAccess<'de> for Fields<'_, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some(next) = self.rest.pop_front() else { return Ok(None) };
        self.current = next;
        seed.deserialize(StrDeserializer::new(next)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let mut shape = Shape::Any;
        let place = (self.name, self.current);
        self.tracer.seen.insert(place);
        let value = seed.deserialize(self.tracer.below(&mut shape))?;
        let required = self.tracer.required.contains(&place);
        self.found.push(Field { name: self.current, required, shape });
        Ok(value)
    }
}

/// The first of an enumeration's names.
struct First(&'static str);

impl<'de> EnumAccess<'de> for First {
    type Error = Error;
    type Variant = Unit;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Unit), Error> {
        Ok((seed.deserialize(StrDeserializer::new(self.0))?, Unit))
    }
}

/// A name without content: all that the kinds' enumerations have.
struct Unit;

impl<'de> VariantAccess<'de> for Unit {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(UnitDeserializer::new())
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("no tuples"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        Err(Error::custom("no structs"))
    }
}
