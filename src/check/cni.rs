//! Our place in the node's network configuration.

use std::path::Path;

use super::{Outcome, Report};
use crate::cni::{PLUGIN, first_configuration, plugins_of};
use crate::config::Settings;

pub(super) fn look(report: &mut Report, settings: &Settings) {
    let cni = &settings.cni;
    if !cni.enabled {
        let why = "cni.enabled is false: this agent does not install a plugin";
        return report.add("cni-order", Outcome::Unknown(why.to_owned()));
    }
    let (program, socket) = (cni.bin_directory.join(PLUGIN), &cni.socket);
    let missing = [program.as_path(), socket].into_iter().find(|path| !path.exists());
    report.add(
        "cni-order",
        match missing {
            Some(path) => Outcome::Failure(format!("{} does not exist", path.display())),
            None => order(&cni.conf_directory),
        },
    );
}

fn order(directory: &Path) -> Outcome {
    let file = match first_configuration(directory) {
        Ok(Some(file)) => file,
        Ok(None) => {
            return Outcome::Failure(format!(
                "no network is configured in {}",
                directory.display()
            ));
        }
        Err(error) => return Outcome::Unknown(error.to_string()),
    };
    let name = file.display();
    let plugins = match std::fs::read_to_string(&file) {
        Ok(text) => plugins_of(&text),
        Err(error) => return Outcome::Unknown(format!("{name}: {error}")),
    };
    let plugins = match plugins {
        Ok(plugins) => plugins,
        Err(error) => return Outcome::Failure(format!("{name}: {error}")),
    };
    let list = plugins.join(", ");
    match plugins.iter().position(|plugin| plugin == PLUGIN) {
        None => Outcome::Failure(format!(
            "{name}, which the runtime reads first, runs {list}, and not {PLUGIN}"
        )),
        Some(at) if at + 1 < plugins.len() => Outcome::Warning(format!(
            "{name} runs {list}: what comes after {PLUGIN} may change the network of a pod that is captured already"
        )),
        Some(_) => Outcome::Pass(format!("{name} runs {list}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugin_has_to_be_the_last_of_the_first_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let judged = |plugins: &str| {
            let text = format!(r#"{{"cniVersion":"1.0.0","name":"x","plugins":[{plugins}]}}"#);
            std::fs::write(directory.path().join("10-net.conflist"), text).unwrap();
            order(directory.path())
        };
        assert!(matches!(order(directory.path()), Outcome::Failure(_)));
        assert!(matches!(judged(r#"{"type":"bridge"},{"type":"isthmus"}"#), Outcome::Pass(_)));
        assert!(matches!(judged(r#"{"type":"isthmus"},{"type":"portmap"}"#), Outcome::Warning(_)));
        assert!(matches!(judged(r#"{"type":"bridge"}"#), Outcome::Failure(_)));
        std::fs::write(directory.path().join("00-other.conf"), r#"{"type":"ptp","name":"y"}"#)
            .unwrap();
        assert!(
            matches!(judged(r#"{"type":"isthmus"}"#), Outcome::Failure(_)),
            "another file comes first"
        );
    }
}
