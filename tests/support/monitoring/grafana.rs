//! The JSON of dashboards that Grafana 11 and 12 import.

use serde_json::{Map, Value, json};

use super::{Choice, Dashboard, Kind, Panel, Query, Variable};

/// Of the schema that Grafana 11.0 has; later versions migrate it.
const SCHEMA: u32 = 39;
const COLUMNS: u32 = 24;

pub(super) fn json(dashboard: &Dashboard) -> Value {
    let source = json!({
        "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
        "current": {}, "hide": 0, "includeAll": false, "multi": false, "options": [], "refresh": 1, "regex": "",
    });
    let variables = std::iter::once(source).chain(dashboard.variables.iter().map(variable));
    json!({
        "uid": format!("isthmus-{}", dashboard.name),
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["isthmus"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": true,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": { "from": "now-1h", "to": "now" },
        "timezone": "browser",
        "annotations": { "list": [] },
        "links": [{
            "type": "dashboards", "title": "Isthmus", "tags": ["isthmus"], "asDropdown": true,
            "includeVars": true, "keepTime": true, "targetBlank": false, "icon": "external link", "tooltip": "", "url": "",
        }],
        "templating": { "list": variables.collect::<Vec<Value>>() },
        "panels": panels(dashboard),
    })
}

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

fn variable(variable: &Variable) -> Value {
    let mut value = json!({
        "name": variable.name, "label": variable.label, "type": "query", "datasource": source(),
        "definition": variable.query,
        "query": { "query": variable.query, "refId": format!("variable-{}", variable.name) },
        "regex": variable.regex, "refresh": 2, "sort": 1, "hide": 0, "options": [],
        "includeAll": false, "multi": false, "current": {},
    });
    if variable.kind == Choice::Many {
        value["includeAll"] = true.into();
        value["multi"] = true.into();
        value["allValue"] = super::ALL.into();
        value["current"] = json!({ "selected": true, "text": ["All"], "value": ["$__all"] });
    }
    value
}

/// Rows from above to below, the panels of each from left to right.
fn panels(dashboard: &Dashboard) -> Vec<Value> {
    let (mut panels, mut top) = (Vec::new(), 0);
    let mut number = 0..;
    let mut id = || number.next().map_or(0, |it: u32| it + 1);
    for row in &dashboard.rows {
        panels.push(json!({
            "id": id(), "type": "row", "title": row.title, "collapsed": false, "panels": [],
            "gridPos": { "x": 0, "y": top, "w": COLUMNS, "h": 1 },
        }));
        top += 1;
        let (mut left, mut tallest) = (0, 0);
        for each in &row.panels {
            let height = if each.kind == Kind::Stat { 4 } else { 8 };
            if left + each.width > COLUMNS {
                (left, top, tallest) = (0, top + tallest, 0);
            }
            let place = json!({ "x": left, "y": top, "w": each.width, "h": height });
            panels.push(panel(id(), each, &place));
            (left, tallest) = (left + each.width, tallest.max(height));
        }
        top += tallest;
    }
    panels
}

fn panel(id: u32, panel: &Panel, place: &Value) -> Value {
    let targets = panel.queries.iter().enumerate().map(|(at, query)| target(panel.kind, at, query));
    let mut value = json!({
        "id": id, "type": kind(panel.kind), "title": panel.title, "description": panel.description,
        "datasource": source(), "gridPos": place, "targets": targets.collect::<Vec<Value>>(),
        "fieldConfig": { "defaults": defaults(panel), "overrides": [] },
        "options": options(panel.kind),
    });
    if panel.kind == Kind::Table {
        let columns = panel.queries.iter();
        value["transformations"] = json!([
            { "id": "merge", "options": {} },
            { "id": "organize", "options": { "excludeByName": { "Time": true }, "renameByName": columns.clone().enumerate()
                .map(|(at, query)| (format!("Value #{}", letter(at)), query.legend.into()))
                .collect::<Map<String, Value>>() } },
        ]);
        value["fieldConfig"]["overrides"] = columns
            .map(|query| {
                json!({
                    "matcher": { "id": "byName", "options": query.legend },
                    "properties": [{ "id": "unit", "value": query.unit }],
                })
            })
            .collect();
    }
    value
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Graph => "timeseries",
        Kind::Stat => "stat",
        Kind::Table => "table",
    }
}

/// The name of a query: A, B and so on.
fn letter(at: usize) -> char {
    ('A'..='Z').nth(at).unwrap_or('Z')
}

fn target(kind: Kind, at: usize, query: &Query) -> Value {
    let mut value = json!({
        "refId": letter(at), "datasource": source(), "expr": query.expression, "legendFormat": query.legend,
        "editorMode": "code", "range": true, "instant": false,
    });
    if kind == Kind::Table {
        value["format"] = "table".into();
        value["instant"] = true.into();
        value["range"] = false.into();
    }
    value
}

fn defaults(panel: &Panel) -> Value {
    let mut steps = vec![json!({ "color": "green", "value": null })];
    if let Some(bound) = panel.red_below {
        steps = vec![
            json!({ "color": "red", "value": null }),
            json!({ "color": "green", "value": bound }),
        ];
    }
    if let Some(bound) = panel.red_above {
        steps.push(json!({ "color": "red", "value": bound }));
    }
    let mut defaults =
        json!({ "unit": panel.unit, "thresholds": { "mode": "absolute", "steps": steps } });
    if panel.kind == Kind::Graph {
        defaults["min"] = 0.into();
        defaults["custom"] =
            json!({ "lineWidth": 1, "fillOpacity": 8, "showPoints": "never", "spanNulls": true });
    }
    defaults
}

fn options(kind: Kind) -> Value {
    match kind {
        Kind::Graph => json!({
            "legend": { "displayMode": "table", "placement": "bottom", "showLegend": true, "calcs": ["lastNotNull", "max"] },
            "tooltip": { "mode": "multi", "sort": "desc" },
        }),
        Kind::Stat => json!({
            "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
            "colorMode": "value", "graphMode": "area", "justifyMode": "auto", "orientation": "auto", "textMode": "auto",
        }),
        Kind::Table => {
            json!({ "showHeader": true, "cellHeight": "sm", "footer": { "show": false } })
        }
    }
}
