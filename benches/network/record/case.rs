//! The cases, and the sides on which each is measured.

/// How bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Side {
    /// Nobody is between client and server.
    Direct,
    /// Client and server speak TLS themselves.
    Rustls,
    /// One proxy without TLS.
    Haproxy,
    Nginx,
    Envoy,
    /// What the mesh replaces: Envoy as node proxy, as waypoint where HTTP is judged, and as node proxy.
    Path,
    /// Isthmus with a waypoint, without route and policy.
    IsthmusBare,
    /// Isthmus; at layer 7 with a route by weight and a policy.
    Isthmus,
}

/// Where the server is, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Across,
    OneNode,
}

/// What the client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Requests over HTTP/1.1, one after the other on each connection.
    Http1 { connections: usize, path: &'static str },
    /// Requests over HTTP/2, one after the other on each stream.
    Http2 { connections: usize, streams: usize, post: bool },
    /// So many a second, whether or not the last was answered; times count from when one was due.
    Paced { rate: u32, http: bool },
    /// Bytes from the server.
    Throughput { connections: usize },
    /// Connections that carry one message and its answer, so many at once.
    Connections { at_once: usize },
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// A pod's address: the mesh and the node proxies carry bytes.
    Four,
    /// A Service with a waypoint.
    Seven,
}

/// One row of the tables.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    pub title: &'static str,
    pub layer: Layer,
    pub place: Place,
    pub load: Load,
}

/// What an answer carries: 128 bytes, or 64 KiB.
pub const SMALL: &str = "/items/1";
pub const LARGE: &str = "/items/large";

const AT_LAYER_7: [Side; 7] = [
    Side::Direct,
    Side::Haproxy,
    Side::Nginx,
    Side::Envoy,
    Side::Path,
    Side::IsthmusBare,
    Side::Isthmus,
];
/// rustls does not speak HTTP here.
const AT_LAYER_4: [Side; 4] = [Side::Direct, Side::Rustls, Side::Path, Side::Isthmus];
const HTTP_AT_LAYER_4: [Side; 3] = [Side::Direct, Side::Path, Side::Isthmus];

pub const CASES: [Case; 17] = [
    seven("h1-1", "HTTP/1.1, 1 connection", http1(1, SMALL)),
    seven("h1-32", "HTTP/1.1, 32 connections", http1(32, SMALL)),
    seven("h1-128", "HTTP/1.1, 128 connections", http1(128, SMALL)),
    seven("h1-64k", "HTTP/1.1, 64 KiB answers, 32 connections", http1(32, LARGE)),
    seven("h2", "HTTP/2, 10 connections x 10 streams", http2(false)),
    seven("h2-post", "HTTP/2, POST of 100 bytes, trailers, 10 x 10", http2(true)),
    seven("rate-1k", "1,000 requests/s", Load::Paced { rate: 1000, http: true }),
    seven("rate-10k", "10,000 requests/s", Load::Paced { rate: 10_000, http: true }),
    four("l4-throughput-1", "1 connection", Place::Across, throughput(1)),
    four("l4-throughput-16", "16 connections", Place::Across, throughput(16)),
    four("l4-requests", "requests, 32 connections", Place::Across, http1(32, SMALL)),
    four("l4-connections", "new connections, 16 at once", Place::Across, connections(16)),
    four("l4-rate-1k", "1,000 messages/s", Place::Across, Load::Paced { rate: 1000, http: false }),
    four("node-throughput-1", "1 connection", Place::OneNode, throughput(1)),
    four("node-throughput-16", "16 connections", Place::OneNode, throughput(16)),
    four("node-requests", "requests, 32 connections", Place::OneNode, http1(32, SMALL)),
    four("node-connections", "new connections, 16 at once", Place::OneNode, connections(16)),
];

/// Cases of Isthmus alone: a name for `--case`, and what it measures.
pub const ALONE: [(&str, &str); 7] = [
    ("many-routes", "1,000 HTTPRoutes on a Service against one"),
    ("many-policies", "1,000 AuthorizationPolicies of a Service against one"),
    ("many-services", "1,000 Services with a waypoint against one"),
    ("idle", "memory of 5,000 idle connections, at layer 4 and of HTTP"),
    ("workloads", "an idle agent with 100 workloads"),
    ("saturated", "layer 4 while another namespace's worker is saturated"),
    ("cores", "one processor for everything against two"),
];

const fn seven(name: &'static str, title: &'static str, load: Load) -> Case {
    Case { name, title, layer: Layer::Seven, place: Place::Across, load }
}

const fn four(name: &'static str, title: &'static str, place: Place, load: Load) -> Case {
    Case { name, title, layer: Layer::Four, place, load }
}

const fn http1(connections: usize, path: &'static str) -> Load {
    Load::Http1 { connections, path }
}

const fn http2(post: bool) -> Load {
    Load::Http2 { connections: 10, streams: 10, post }
}

const fn throughput(connections: usize) -> Load {
    Load::Throughput { connections }
}

const fn connections(at_once: usize) -> Load {
    Load::Connections { at_once }
}

impl Place {
    pub fn title(self) -> &'static str {
        match self {
            Place::Across => "across nodes",
            Place::OneNode => "one node",
        }
    }
}

impl Case {
    pub fn named(name: &str) -> Option<&'static Case> {
        CASES.iter().find(|case| case.name == name)
    }

    /// What it is outside of the tables of its layer.
    pub fn whole_title(&self) -> String {
        match self.layer {
            Layer::Seven => self.title.to_owned(),
            Layer::Four => format!("layer 4, {}: {}", self.place.title(), self.title),
        }
    }

    /// On which it is measured, in turn.
    pub fn sides(&self) -> &'static [Side] {
        match (self.layer, self.load) {
            (Layer::Seven, _) => &AT_LAYER_7,
            (_, Load::Http1 { .. } | Load::Http2 { .. }) => &HTTP_AT_LAYER_4,
            _ => &AT_LAYER_4,
        }
    }

    /// The unit of its rate.
    pub fn unit(&self) -> &'static str {
        match self.load {
            Load::Throughput { .. } => "Gbit/s",
            Load::Connections { .. } => "connections/s",
            Load::Paced { http: false, .. } => "messages/s",
            _ => "requests/s",
        }
    }

    /// For how much work processor time and system calls are told.
    pub fn work(&self) -> &'static str {
        match self.load {
            Load::Throughput { .. } => "GiB",
            _ => "100,000",
        }
    }

    pub fn is_latency(&self) -> bool {
        matches!(self.load, Load::Paced { .. })
    }
}

impl Side {
    pub const ALL: [Side; 8] = [
        Side::Direct,
        Side::Rustls,
        Side::Haproxy,
        Side::Nginx,
        Side::Envoy,
        Side::Path,
        Side::IsthmusBare,
        Side::Isthmus,
    ];

    /// In the recorded figures and in `--side`.
    pub fn name(self) -> &'static str {
        match self {
            Side::Direct => "direct",
            Side::Rustls => "rustls",
            Side::Haproxy => "haproxy",
            Side::Nginx => "nginx",
            Side::Envoy => "envoy",
            Side::Path => "path",
            Side::IsthmusBare => "isthmus-bare",
            Side::Isthmus => "isthmus",
        }
    }

    /// In the tables of layer 7, where Isthmus has a policy and not.
    pub fn title(self) -> &'static str {
        match self {
            Side::Direct => "no proxy",
            Side::Rustls => "rustls itself",
            Side::Haproxy => "HAProxy, plain",
            Side::Nginx => "nginx, plain",
            Side::Envoy => "Envoy, plain",
            Side::Path => "replaced path",
            Side::IsthmusBare => "Isthmus, no policy",
            Side::Isthmus => "Isthmus",
        }
    }

    /// Whether a proxy of its own carries the load.
    pub fn has_proxies(self) -> bool {
        !matches!(self, Side::Direct | Side::Rustls)
    }
}
