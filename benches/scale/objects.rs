//! Objects of a large cluster, as JSON: namespaces with Services, and the pods of their Deployments. The same numbers
//! give the same objects.

use serde_json::{Value, json};

/// How large the cluster is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub namespaces: u32,
    pub services: u32,
    pub pods: u32,
}

/// Services that select pods, one each, with as many pods as there are.
impl Size {
    pub fn namespaces(self) -> impl Iterator<Item = Value> {
        (0..self.namespaces).map(|number| {
            json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": format!("scale-{number}"), "labels": {"istio.io/dataplane-mode": "ambient"}},
            })
        })
    }

    fn namespace_of(self, service: u32) -> String {
        format!("scale-{}", service % self.namespaces)
    }

    pub fn services(self) -> impl Iterator<Item = Value> {
        (0..self.services).map(move |number| {
            let name = format!("svc-{number}");
            json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {
                    "name": name, "namespace": self.namespace_of(number),
                    // Not for kube-proxy, which would be at work on its rules for minutes.
                    "labels": {"app": name, "service.kubernetes.io/service-proxy-name": "none"},
                },
                "spec": {
                    "selector": {"app": name, "tier": "backend"},
                    "ports": [{"name": "http", "port": 80, "targetPort": "http"}, {"name": "grpc", "port": 81, "targetPort": 9090}],
                },
            })
        })
    }

    pub fn pods(self) -> impl Iterator<Item = Value> {
        (0..self.pods).map(move |number| self.pod(number, true))
    }

    /// A pod of a Deployment behind service `number % services`, about as large as pods are.
    pub fn pod(self, number: u32, ready: bool) -> Value {
        let service = number % self.services;
        let (app, hash) = (format!("svc-{service}"), "6d5f8c7b9d");
        let address =
            format!("10.{}.{}.{}", 128 + (number >> 16), (number >> 8) & 255, number & 255);
        let container = |name: &str| {
            json!({
                "name": name, "image": format!("registry.example.org/team/{name}:v1.2.3"),
                "env": (0..12).map(|at| json!({"name": format!("VARIABLE_{at}"), "value": format!("the value of {at}")})).collect::<Vec<_>>(),
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}, {"name": "metrics", "containerPort": 9100, "protocol": "TCP"}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10},
                "volumeMounts": [{"name": "config", "mountPath": "/etc/app"}],
                "securityContext": {"runAsNonRoot": true, "allowPrivilegeEscalation": false},
            })
        };
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("{app}-{hash}-{number:05}"), "namespace": self.namespace_of(service),
                "labels": {
                    "app": app, "tier": "backend", "pod-template-hash": hash, "app.kubernetes.io/name": app,
                    "app.kubernetes.io/version": "1.2.3", "topology.kubernetes.io/zone": format!("zone-{}", number % 3),
                },
                "annotations": {"prometheus.io/scrape": "true", "checksum/config": "0123456789abcdef0123456789abcdef"},
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-{hash}"), "controller": true,
                    "uid": "6a1b1c2d-0000-4000-8000-000000000000",
                }],
            },
            "spec": {
                "serviceAccountName": app, "nodeName": format!("scale-node-{}", number % 200),
                "containers": [container("app"), container("proxy")],
                "volumes": [{"name": "config", "configMap": {"name": app}}],
                "terminationGracePeriodSeconds": 30,
            },
            "status": {
                "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "hostIP": "10.99.0.250",
                "conditions": [
                    {"type": "PodScheduled", "status": "True"}, {"type": "Initialized", "status": "True"},
                    {"type": "Ready", "status": if ready { "True" } else { "False" }},
                    {"type": "ContainersReady", "status": if ready { "True" } else { "False" }},
                ],
                "containerStatuses": [
                    {"name": "app", "image": "registry.example.org/team/app:v1.2.3", "imageID": "sha256:0", "ready": true, "restartCount": 0},
                    {"name": "proxy", "image": "registry.example.org/team/proxy:v1.2.3", "imageID": "sha256:0", "ready": true, "restartCount": 0},
                ],
            },
        })
    }
}
