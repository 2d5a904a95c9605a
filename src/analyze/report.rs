//! All findings, and how they are printed.

use std::fmt::{self, Display};

use super::code::Level;
use super::finding::Finding;
use crate::model::Mesh;

/// What `isthmus analyze` prints, and the agent's page `/analysis`.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Report {
    pub findings: Vec<Finding>,
    pub counts: Counts,
}

/// How many there are, and of what was looked at.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    pub errors: usize,
    pub warnings: usize,
    pub infos: usize,
    pub workloads: usize,
    pub services: usize,
    pub waypoints: usize,
    pub routes: usize,
    pub policies: usize,
}

impl Report {
    pub(super) fn new(mut findings: Vec<Finding>, mesh: &Mesh) -> Self {
        findings.sort();
        findings.dedup();
        let count = |level| findings.iter().filter(|it| it.severity == level).count();
        let counts = Counts {
            errors: count(Level::Error),
            warnings: count(Level::Warning),
            infos: count(Level::Info),
            workloads: mesh.workloads.len(),
            services: mesh.services.len(),
            waypoints: mesh.waypoints.len(),
            routes: mesh.routes.len() + mesh.stream_routes.len(),
            policies: mesh.policies.len(),
        };
        Self { findings, counts }
    }

    /// The worst that was found.
    pub fn worst(&self) -> Option<Level> {
        self.findings.iter().map(|finding| finding.severity).min()
    }
}

/// A name from a manifest cannot look like another line.
fn one_line(text: impl Display) -> String {
    text.to_string().replace(|char: char| char.is_control(), " ")
}

impl Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, document, kind, namespace, name, code, severity, .. } = self;
        write!(f, "{severity} {}: {}", code.described().id, one_line(kind))?;
        match namespace.is_empty() {
            _ if name.is_empty() => {}
            true => write!(f, " {}", one_line(name))?,
            false => write!(f, " {}/{}", one_line(namespace), one_line(name))?,
        }
        match (file, document) {
            (Some(file), Some(document)) if *document > 0 => {
                write!(f, " ({}, document {document})", one_line(file))?;
            }
            (Some(file), _) => write!(f, " ({})", one_line(file))?,
            _ => {}
        }
        if !self.field.is_empty() {
            write!(f, ": {}", one_line(&self.field))?;
        }
        writeln!(f, ": {}", one_line(&self.message))?;
        writeln!(f, "  {}", self.mend)
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            write!(f, "{finding}")?;
        }
        let Counts { errors, warnings, infos, workloads, services, waypoints, routes, policies } =
            &self.counts;
        writeln!(
            f,
            "{errors} errors, {warnings} warnings, {infos} infos; looked at {workloads} workloads, {services} services, \
             {waypoints} waypoints, {routes} routes, {policies} policies"
        )
    }
}
