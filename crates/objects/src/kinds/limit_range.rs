//! LimitRange: how small and how large each Pod, container or claim of a namespace may be.
//!
//! Source: `SetDefaults_LimitRangeItem` in `pkg/apis/core/v1`, `ValidateLimitRange` in `pkg/apis/core/validation`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem, LimitRangeSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::field::{FieldError, FieldErrors};
use crate::kind::Names;
use crate::metadata::wrong;
use crate::names;
use crate::quantity::Amount;
use crate::resources;
use crate::rules::Rules;

const TYPES: [&str; 3] = ["Pod", "Container", "PersistentVolumeClaim"];

type Amounts = BTreeMap<String, Quantity>;

pub(super) struct LimitRanges;

impl Rules for LimitRanges {
    type Object = LimitRange;

    const NAMES: Names = Names {
        group: "",
        version: "v1",
        kind: "LimitRange",
        plural: "limitranges",
        singular: "limitrange",
        short_names: &["limits"],
        categories: &[],
        namespaced: true,
    };
    const NULLS: &'static [&'static str] = &["/spec/limits"];

    fn default(object: &mut LimitRange) {
        let spec = object.spec.get_or_insert_with(LimitRangeSpec::default);
        for item in &mut spec.limits {
            if item.type_ == "Container" {
                default_item(item);
            }
        }
    }

    fn validate(object: &LimitRange) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let mut seen = BTreeSet::new();
        let limits = object.spec.iter().flat_map(|spec| &spec.limits);
        for (i, item) in limits.enumerate() {
            let at = format!("spec.limits[{i}]");
            let of = item.type_.as_str();
            let at_type = format!("{at}.type");
            let bad_name = wrong(&at_type, of, names::qualified_name(of));
            if bad_name.is_empty() && !of.contains('/') && !TYPES.contains(&of) {
                let words = "must be a standard limit type or fully qualified";
                errors.push(FieldError::invalid(at_type.clone(), of, words));
            }
            errors.extend(bad_name);
            if !seen.insert(of) {
                errors.push(FieldError::duplicate(at_type, of));
            }
            errors.extend(validate_item(item, &at));
        }
        errors
    }
}

/// What is left out follows from what is there: the limit from the maximum, the request from the limit, else from the
/// minimum.
fn default_item(item: &mut LimitRangeItem) {
    let fill = |to: &mut Amounts, from: &Amounts| {
        for (name, amount) in from {
            to.entry(name.clone()).or_insert_with(|| amount.clone());
        }
    };
    let mut limits = item.default.take().unwrap_or_default();
    let mut requests = item.default_request.take().unwrap_or_default();
    if let Some(max) = &item.max {
        fill(&mut limits, max);
    }
    fill(&mut requests, &limits);
    if let Some(min) = &item.min {
        fill(&mut requests, min);
    }
    item.default = Some(limits);
    item.default_request = Some(requests);
}

fn validate_item(item: &LimitRangeItem, at: &str) -> FieldErrors {
    let mut errors = FieldErrors::new();
    let empty = Amounts::new();
    let of_pod = item.type_ == "Pod";
    let list = |amounts: &Option<Amounts>| amounts.clone().unwrap_or_default();
    let (max, min) = (list(&item.max), list(&item.min));
    let (limits, requests) = (list(&item.default), list(&item.default_request));
    let ratios = list(&item.max_limit_request_ratio);
    let check_names = |field: &str, amounts: &Amounts| -> FieldErrors {
        let names = amounts.keys().flat_map(|name| {
            let at = format!("{at}.{field}[{name}]");
            if matches!(item.type_.as_str(), "Pod" | "Container") {
                resources::validate_container_name(name, &at)
            } else {
                resources::validate_name(name, &at)
            }
        });
        names.collect()
    };
    errors.extend(check_names("max", &max));
    errors.extend(check_names("min", &min));
    for (field, amounts) in [("default", &limits), ("defaultRequest", &requests)] {
        if !of_pod {
            errors.extend(check_names(field, amounts));
        } else if !amounts.is_empty() {
            let words = "may not be specified when `type` is 'Pod'";
            errors.push(FieldError::forbidden(format!("{at}.{field}"), words));
        }
    }
    let limits_storage = min.contains_key("storage") || max.contains_key("storage");
    if item.type_ == "PersistentVolumeClaim" && !limits_storage {
        errors.push(FieldError::required(
            format!("{at}.limits"),
            "either minimum or maximum storage value is required, but neither was provided",
        ));
    }
    errors.extend(check_names("maxLimitRequestRatio", &ratios));

    let (limits, requests) = if of_pod {
        (&empty, &empty)
    } else {
        (&limits, &requests)
    };
    let mut all: BTreeSet<&String> = BTreeSet::new();
    for amounts in [&max, &min, limits, requests, &ratios] {
        all.extend(amounts.keys());
    }
    for name in all {
        let of = |amounts: &Amounts| {
            let quantity = amounts.get(name)?;
            Some(Bound {
                amount: Amount::parse(&quantity.0)?,
                text: quantity.0.clone(),
            })
        };
        let bounds = Bounds {
            min: of(&min),
            max: of(&max),
            limit: of(limits),
            request: of(requests),
            ratio: of(&ratios),
        };
        errors.extend(bounds.validate(name, at));
    }
    errors
}

#[derive(Clone)]
struct Bound {
    amount: Amount,
    text: String,
}

/// All that is said of one resource.
struct Bounds {
    min: Option<Bound>,
    max: Option<Bound>,
    limit: Option<Bound>,
    request: Option<Bound>,
    ratio: Option<Bound>,
}

impl Bounds {
    fn validate(&self, name: &str, at: &str) -> FieldErrors {
        let mut errors = FieldErrors::new();
        let mut above = |low: &Option<Bound>,
                         high: &Option<Bound>,
                         names: [&str; 2],
                         field: &str,
                         shows_low: bool| {
            if let (Some(low), Some(high)) = (low, high)
                && low.amount > high.amount
            {
                let shown = if shows_low { &low.text } else { &high.text };
                let words = format!(
                    "{} value {} is greater than {} value {}",
                    names[0], low.text, names[1], high.text
                );
                errors.push(FieldError::invalid(
                    format!("{at}.{field}[{name}]"),
                    shown,
                    &words,
                ));
            }
        };
        let Self {
            min,
            max,
            limit,
            request,
            ratio,
        } = self;
        above(min, max, ["min", "max"], "min", true);
        above(
            min,
            request,
            ["min", "default request"],
            "defaultRequest",
            false,
        );
        above(
            request,
            max,
            ["default request", "max"],
            "defaultRequest",
            true,
        );
        above(
            request,
            limit,
            ["default request", "default limit"],
            "defaultRequest",
            true,
        );
        above(min, limit, ["min", "default"], "default", true);
        above(limit, max, ["default", "max"], "default", false);
        if let Some(ratio) = ratio {
            errors
                .extend(self.validate_ratio(ratio, &format!("{at}.maxLimitRequestRatio[{name}]")));
        }
        if let (Some(limit), Some(request)) = (limit, request)
            && !resources::may_be_overcommitted(name)
            && limit.amount != request.amount
        {
            let words = format!(
                "default value {} must equal to defaultRequest value {} in {name}",
                limit.text, request.text
            );
            errors.push(FieldError::invalid(
                format!("{at}.defaultRequest[{name}]"),
                &request.text,
                &words,
            ));
        }
        errors
    }

    fn validate_ratio(&self, ratio: &Bound, at: &str) -> FieldErrors {
        let mut errors = FieldErrors::new();
        if ratio.amount < Amount::whole(1) {
            let words = format!("ratio {} is less than 1", ratio.text);
            errors.push(FieldError::invalid(at, &ratio.text, &words));
        }
        if let (Some(min), Some(max)) = (&self.min, &self.max) {
            let most = as_float(max.amount.milli()) / as_float(min.amount.milli());
            if as_float(ratio.amount.milli()) / 1000.0 > most {
                let words = format!("ratio {} is greater than max/min = {most:.6}", ratio.text);
                errors.push(FieldError::invalid(at, &ratio.text, &words));
            }
        }
        errors
    }
}

/// Ratios are compared as floating point numbers, as Kubernetes does.
#[expect(
    clippy::cast_precision_loss,
    reason = "a ratio of two amounts is approximate"
)]
fn as_float(number: i128) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use crate::kinds;
    use serde_json::{Value, json};

    fn made(limits: Value) -> Value {
        let kind = kinds::find("", "v1", "limitranges").expect("limitranges");
        let object =
            json!({"metadata": {"name": "l", "namespace": "d"}, "spec": {"limits": limits}});
        let mut object = kind.decode(object).expect("decodes");
        kind.default(&mut object);
        object
    }

    fn errors(limits: Value) -> Vec<String> {
        let kind = kinds::find("", "v1", "limitranges").expect("limitranges");
        kind.validate(&made(limits))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn what_is_left_out_follows_from_what_is_there() {
        let item = made(
            json!([{"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "50m", "memory": "1Mi"}}]),
        );
        assert_eq!(
            item["spec"]["limits"][0],
            json!({"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "1", "memory": "1Mi"},
                "max": {"cpu": "1"}, "min": {"cpu": "50m", "memory": "1Mi"}})
        );
        let pod = made(json!([{"type": "Pod", "max": {"cpu": "1"}}]));
        assert_eq!(
            pod["spec"]["limits"][0],
            json!({"type": "Pod", "max": {"cpu": "1"}})
        );
    }

    #[test]
    fn bounds_must_be_in_order() {
        assert_eq!(
            errors(json!([{"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "2"}}])),
            [
                "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than default request value 1",
                "spec.limits[0].default[cpu]: Invalid value: \"2\": min value 2 is greater than default value 1",
            ]
        );
        assert_eq!(
            errors(
                json!([{"type": "Pod", "default": {"cpu": "1"}, "max": {"gpu": "1"}}, {"type": "Pod"}, {"type": "Node"}])
            ),
            [
                "spec.limits[0].max[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified",
                "spec.limits[0].max[gpu]: Invalid value: \"gpu\": must be a standard resource for containers",
                "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
                "spec.limits[1].type: Duplicate value: \"Pod\"",
                "spec.limits[2].type: Invalid value: \"Node\": must be a standard limit type or fully qualified",
            ]
        );
        assert_eq!(
            errors(
                json!([{"type": "Pod", "max": {"cpu": "4"}, "min": {"cpu": "2"}, "maxLimitRequestRatio": {"cpu": "3"}}])
            ),
            [
                "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min = 2.000000"
            ]
        );
        assert_eq!(
            errors(json!([{"type": "PersistentVolumeClaim", "max": {"cpu": "4"}}])),
            [
                "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided"
            ]
        );
    }
}
