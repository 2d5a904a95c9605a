//! Our entry in a network configuration: pure. Everything else in the file stays as it is, in its order.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

/// The plugin's type, which is also the name of the program that the runtime runs.
pub const PLUGIN: &str = "isthmus";

/// The content of our entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub socket: PathBuf,
    /// Pods of these namespaces start even if the agent does not answer.
    pub exclude_namespaces: Vec<String>,
}

/// A malformed configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl Entry {
    fn value(&self) -> Value {
        json!({
            "type": PLUGIN,
            "socket": self.socket,
            "exclude_namespaces": self.exclude_namespaces,
        })
    }
}

/// The list with our entry as its last plugin, once; `None` if it is there already.
pub(super) fn with_plugin(text: &str, entry: &Entry) -> Result<Option<String>, Malformed> {
    let mut list = parse(text)?;
    let before = list.clone();
    let plugins = plugins(&mut list)?;
    plugins.retain(|plugin| !is_ours(plugin));
    if plugins.is_empty() {
        return Err(Malformed("plugins: no plugin creates a network".to_owned()));
    }
    plugins.push(entry.value());
    Ok((list != before).then(|| print(&list)))
}

/// The list without our entry; `None` if it is not in it.
pub(super) fn without_plugin(text: &str) -> Result<Option<String>, Malformed> {
    let mut list = parse(text)?;
    let plugins = plugins(&mut list)?;
    let before = plugins.len();
    plugins.retain(|plugin| !is_ours(plugin));
    Ok((plugins.len() != before).then(|| print(&list)))
}

/// The configuration of a single plugin as a list of that plugin and ours, as the runtime itself reads it.
pub(super) fn list_of(text: &str, entry: &Entry) -> Result<String, Malformed> {
    let single = parse(text)?;
    let name = single.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Malformed("name: is missing".to_owned()))?.to_owned();
    if single.get("type").and_then(Value::as_str).is_none_or(str::is_empty) {
        return Err(Malformed("type: is missing".to_owned()));
    }
    let mut list = Map::new();
    if let Some(version) = single.get("cniVersion") {
        list.insert("cniVersion".to_owned(), version.clone());
    }
    list.insert("name".to_owned(), Value::String(name));
    list.insert("plugins".to_owned(), Value::Array(vec![Value::Object(single), entry.value()]));
    Ok(print(&list))
}

/// The types of the plugins that a configuration runs, in their order: of a list, or of a single plugin.
///
/// # Errors
/// It is no configuration.
pub fn plugins_of(text: &str) -> Result<Vec<String>, Malformed> {
    let mut configuration = parse(text)?;
    let of_type = |plugin: &Value| plugin.get("type").and_then(Value::as_str).map(str::to_owned);
    if let Some(single) = configuration.get("type").and_then(Value::as_str) {
        return Ok(vec![single.to_owned()]);
    }
    Ok(plugins(&mut configuration)?.iter().filter_map(of_type).collect())
}

/// Whether both have the same content, however they are written.
pub(super) fn says_the_same(one: &str, other: &str) -> bool {
    matches!((parse(one), parse(other)), (Ok(one), Ok(other)) if one == other)
}

fn parse(text: &str) -> Result<Map<String, Value>, Malformed> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Malformed("is not a JSON object".to_owned())),
        Err(error) => Err(Malformed(format!("is not JSON: {error}"))),
    }
}

fn plugins(list: &mut Map<String, Value>) -> Result<&mut Vec<Value>, Malformed> {
    match list.get_mut("plugins") {
        Some(Value::Array(plugins)) => Ok(plugins),
        Some(_) => Err(Malformed("plugins: is not a list".to_owned())),
        None => Err(Malformed("plugins: is missing".to_owned())),
    }
}

fn is_ours(plugin: &Value) -> bool {
    plugin.get("type").and_then(Value::as_str) == Some(PLUGIN)
}

fn print(list: &Map<String, Value>) -> String {
    // A map of JSON values can always be serialized; a newline ends it as editors do.
    serde_json::to_string_pretty(list).map(|text| text + "\n").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> Entry {
        Entry {
            socket: "/run/isthmus/cni.sock".into(),
            exclude_namespaces: vec!["isthmus-system".into(), "kube-system".into()],
        }
    }

    const LIST: &str = r#"{"cniVersion":"1.0.0","name":"lab","zeta":1,"plugins":[
        {"type":"ptp","ipam":{"type":"host-local","routes":[{"dst":"0.0.0.0/0"}]},"mtu":1450},
        {"type":"portmap","capabilities":{"portMappings":true}}],"alpha":null}"#;

    #[test]
    fn edits_are_as_recorded() {
        let single =
            r#"{"cniVersion": "0.3.1", "name": "bridge", "type": "bridge", "bridge": "cni0"}"#;
        insta::with_settings!({
            snapshot_path => "../../tests/golden/cni",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, {
            insta::assert_snapshot!("conflist", with_plugin(LIST, &entry()).unwrap().unwrap());
            insta::assert_snapshot!("single", list_of(single, &entry()).unwrap());
        });
    }

    #[test]
    fn what_is_done_is_not_done_again() {
        let edited = with_plugin(LIST, &entry()).unwrap().unwrap();
        assert_eq!(with_plugin(&edited, &entry()).unwrap(), None);
        let other = Entry { socket: "/elsewhere".into(), ..entry() };
        let changed = with_plugin(&edited, &other).unwrap().unwrap();
        assert_eq!(changed.matches(r#""type": "isthmus""#).count(), 1);
        assert!(changed.contains("/elsewhere"));
    }

    #[test]
    fn what_is_no_list_of_plugins_is_refused_with_its_field() {
        for (text, reason) in [
            ("", "is not JSON"),
            ("[]", "is not a JSON object"),
            (r#"{"name": "a"}"#, "plugins: is missing"),
            (r#"{"plugins": {}}"#, "plugins: is not a list"),
            (r#"{"plugins": [{"type": "isthmus"}]}"#, "plugins: no plugin"),
        ] {
            let error = with_plugin(text, &entry()).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        let nameless = list_of(r#"{"type": "bridge"}"#, &entry()).unwrap_err();
        assert_eq!(nameless.to_string(), "name: is missing");
        let typeless = list_of(r#"{"name": "a"}"#, &entry()).unwrap_err();
        assert_eq!(typeless.to_string(), "type: is missing");
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            ".*".prop_map(Value::String),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                proptest::collection::vec(("[a-z]{1,8}", inner), 0..4)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn removal_leaves_what_was_there(
            fields in proptest::collection::vec(("[a-z]{1,8}", json()), 0..4),
            plugins in proptest::collection::vec(json(), 1..4),
        ) {
            let mut list: Map<String, Value> = fields.into_iter().collect();
            list.insert("plugins".to_owned(), Value::Array(plugins));
            let text = Value::Object(list.clone()).to_string();
            let edited = with_plugin(&text, &entry()).unwrap().unwrap();
            let restored = without_plugin(&edited).unwrap().unwrap();
            prop_assert!(says_the_same(&restored, &text));
            let order = |text: &str| parse(text).unwrap().keys().cloned().collect::<Vec<_>>();
            prop_assert_eq!(order(&restored), order(&text));
        }

        #[test]
        fn no_file_is_a_panic(text in ".*", value in json()) {
            for text in [text, value.to_string()] {
                _ = with_plugin(&text, &entry());
                _ = without_plugin(&text);
                _ = list_of(&text, &entry());
            }
        }
    }
}
