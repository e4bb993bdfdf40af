//! The objects that every cluster has: the built-in namespaces with what Pods in them need, and the Service behind
//! which the API server itself is. Other namespaces get theirs from the controllers.
//! Source: `k8s.io/kubernetes/pkg/controlplane`, `systemnamespaces` and `reconcilers`.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::admission::User;
use crate::api::{Api, Call};
use crate::error::Error;
use crate::negotiate::Accept;
use crate::query::Query;
use crate::registry::Resource;
use crate::server::Config;
use crate::status::ApiError;
use crate::verbs::create::store_new;
use crate::verbs::update::{Part, change};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// The port of the Service `default/kubernetes`.
const PORT: u16 = 443;

/// Makes what is missing, and brings up to date what says where the API server is.
pub(crate) async fn run(api: &Api, config: &Config) -> Result<(), Error> {
    let authority = config.pki.authority_pem()?;
    let boot = Bootstrap {
        api,
        user: User {
            name: "system:apiserver".to_owned(),
            groups: vec!["system:masters".to_owned()],
            ..User::default()
        },
    };
    for name in NAMESPACES {
        boot.ensure("namespaces", "", name, json!({})).await?;
        boot.ensure("serviceaccounts", name, "default", json!({}))
            .await?;
        let roots = json!({"data": {"ca.crt": authority}});
        boot.ensure("configmaps", name, "kube-root-ca.crt", roots.clone())
            .await?;
        boot.set("configmaps", name, "kube-root-ca.crt", roots)
            .await?;
    }
    boot.service_cidr(&config.service_cidrs).await?;
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let target = config.advertise.port();
    let service = json!({
        "metadata": {"labels": labels},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": config.service_cidrs.first().and_then(first_address),
            "ports": [{"name": "https", "protocol": "TCP", "port": PORT, "targetPort": target}],
        },
    });
    boot.ensure("services", "default", "kubernetes", service)
        .await?;
    let ports = json!([{"name": "https", "protocol": "TCP", "port": PORT, "targetPort": target}]);
    boot.change("services", "default", "kubernetes", |old| {
        let mut new = old.clone();
        new["spec"]["ports"] = ports.clone();
        new
    })
    .await?;
    if config.advertise.ip().is_loopback() {
        // Endpoints may not be loopback addresses: from a Pod they would lead to the Pod.
        tracing::warn!(advertise = %config.advertise, "Pods cannot reach the API server at this address");
        return Ok(());
    }
    let address = config.advertise.ip().to_string();
    let endpoints = json!({
        "metadata": {"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{
            "addresses": [{"ip": address}],
            "ports": [{"name": "https", "port": target, "protocol": "TCP"}],
        }],
    });
    boot.ensure("endpoints", "default", "kubernetes", endpoints.clone())
        .await?;
    boot.set("endpoints", "default", "kubernetes", endpoints)
        .await?;
    let slice = json!({
        "metadata": {"labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": if config.advertise.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": target, "protocol": "TCP"}],
    });
    boot.ensure("endpointslices", "default", "kubernetes", slice.clone())
        .await?;
    boot.set("endpointslices", "default", "kubernetes", slice)
        .await
}

/// The address of `default/kubernetes`: the first of the range that is not the network's own.
pub(crate) fn first_address(range: &IpNet) -> Option<String> {
    let next = match range.network() {
        IpAddr::V4(v4) => IpAddr::V4(u32::from(v4).checked_add(1)?.into()),
        IpAddr::V6(v6) => IpAddr::V6(u128::from(v6).checked_add(1)?.into()),
    };
    Some(next.to_string())
}

struct Bootstrap<'a> {
    api: &'a Api,
    user: User,
}

impl Bootstrap<'_> {
    /// Creates the object unless it is there.
    async fn ensure(
        &self,
        plural: &str,
        namespace: &str,
        name: &str,
        mut object: Value,
    ) -> Result<(), Error> {
        let query = Query::default();
        let resource = self.resource(plural, name)?;
        let call = self.call(&resource, namespace, name, &query);
        if self.api.store.get(&call.key()).is_some() {
            return Ok(());
        }
        let metadata = crate::object::metadata_mut(&mut object);
        metadata.insert("name".to_owned(), name.into());
        object["apiVersion"] = call.resource.api_version.as_str().into();
        object["kind"] = call.resource.names.kind.into();
        store_new(&call, object)
            .await
            .map(|_| ())
            .map_err(|e| failed(plural, name, e))
    }

    /// The ServiceCIDR of the ranges that the server was started with. It may get its second family later; whoever
    /// wants other ranges has to change it by hand.
    /// Source: `pkg/controlplane/controller/defaultservicecidr`.
    async fn service_cidr(&self, ranges: &[IpNet]) -> Result<(), Error> {
        let (plural, name) = ("servicecidrs", "kubernetes");
        let wanted = json!(ranges);
        self.ensure(plural, "", name, json!({"spec": {"cidrs": wanted}}))
            .await?;
        self.change(plural, "", name, |old| {
            let mut new = old.clone();
            let first = old.pointer("/spec/cidrs/0");
            let single = old.pointer("/spec/cidrs/1").is_none();
            if ranges.len() == 2 && single && first == wanted.get(0) {
                new["spec"]["cidrs"] = wanted.clone();
            } else if old.pointer("/spec/cidrs") != Some(&wanted) {
                tracing::warn!(stored = %old["spec"]["cidrs"], flags = %wanted,
                    "the default ServiceCIDR is not what the server was started with");
            }
            new
        })
        .await?;
        let query = Query::default();
        let resource = self.resource(plural, name)?;
        let call = self.call(&resource, "", name, &query);
        change(&call, Part::Status, |old| {
            let mut new = old.clone();
            let deleting = old.pointer("/metadata/deletionTimestamp").is_some();
            if old.pointer("/status/conditions").is_none() && !deleting {
                new["status"] = json!({"conditions": [{
                    "type": "Ready", "status": "True", "reason": "",
                    "message": "Kubernetes default Service CIDR is ready",
                    "lastTransitionTime": crate::metadata::now(),
                }]});
            }
            Ok(new)
        })
        .await
        .map(|_| ())
        .map_err(|e| failed(plural, name, e))
    }

    /// Sets all fields of the object but its metadata to these.
    async fn set(
        &self,
        plural: &str,
        namespace: &str,
        name: &str,
        object: Value,
    ) -> Result<(), Error> {
        self.change(plural, namespace, name, |old| {
            let mut new = old.clone();
            for (field, value) in object
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(field, _)| *field != "metadata")
            {
                new[field] = value.clone();
            }
            new
        })
        .await
    }

    async fn change(
        &self,
        plural: &str,
        namespace: &str,
        name: &str,
        make: impl Fn(&Value) -> Value,
    ) -> Result<(), Error> {
        let query = Query::default();
        let resource = self.resource(plural, name)?;
        let call = self.call(&resource, namespace, name, &query);
        change(&call, Part::Object, |old| Ok(make(old)))
            .await
            .map(|_| ())
            .map_err(|e| failed(plural, name, e))
    }

    fn resource(&self, plural: &str, name: &str) -> Result<Arc<Resource>, Error> {
        let group = match plural {
            "endpointslices" => "discovery.k8s.io",
            "servicecidrs" => "networking.k8s.io",
            _ => "",
        };
        let resource = self.api.registry.resource(group, "v1", plural);
        resource.ok_or_else(|| failed(plural, name, ApiError::no_such_resource()))
    }

    fn call<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
        name: &'a str,
        query: &'a Query,
    ) -> Call<'a> {
        Call {
            api: self.api,
            resource,
            namespace,
            name,
            subresource: "",
            user: &self.user,
            agent: "kube-apiserver",
            query,
            accept: Accept::JSON_OBJECTS,
        }
    }
}

fn failed(plural: &str, name: &str, error: ApiError) -> Error {
    Error::Bootstrap {
        what: format!("{plural} {name:?}"),
        source: Box::new(error),
    }
}
