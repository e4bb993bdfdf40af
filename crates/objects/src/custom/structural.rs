//! What the schema of a custom resource may contain: every field has a type outside of logical junctors, so that it is
//! known what an object may hold before any of its values is looked at.
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/schema/validation.go`, `complete.go`, `defaulting/validation.go`
//! and `pkg/apis/apiextensions/validation`; "Specifying a structural schema" in Kubernetes' documentation.

use serde_json::json;

use super::schema::{Additional, Items, Schema};
use super::{embedded, prune, rules, value};
use crate::field::{FieldError, FieldErrors};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Reasons that a rule may give.
const REASONS: [&str; 4] = [
    "FieldValueDuplicate",
    "FieldValueForbidden",
    "FieldValueInvalid",
    "FieldValueRequired",
];

/// What is wrong with the schema of a version. `path` is where it is, `status` whether the version has the status
/// subresource.
pub fn validate(schema: &Schema, path: &str, status: bool) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if status {
        check_root_with_status(schema, path, &mut errors);
    }
    if schema.nullable {
        errors.push(FieldError::forbidden(
            format!("{path}.nullable"),
            "nullable cannot be true at the root",
        ));
    }
    let mut structural = FieldErrors::new();
    invariants(schema, Level::Root, path, &mut structural);
    completeness(schema, schema, path, path, &mut structural);
    structural.sort_by_key(ToString::to_string);
    let broken = !structural.is_empty();
    errors.extend(structural);
    if !broken {
        defaults(schema, path, Place::Root, &mut errors);
    }
    let mut walk = Walk {
        errors: &mut errors,
    };
    let start = Context {
        root: true,
        meta: false,
        no_defaults: None,
    };
    walk.schema(schema, path, &start);
    errors
}

/// With a status subresource the schema of the status is used by itself, so the root may hold nothing that is about
/// both.
fn check_root_with_status(schema: &Schema, path: &str, errors: &mut FieldErrors) {
    if !schema.kind.is_empty() && schema.kind != "object" {
        errors.push(FieldError::invalid(
            format!("{path}.type"),
            &schema.kind,
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled",
        ));
        return;
    }
    let forbidden = schema.nullable
        || schema.default.is_some()
        || schema.max_properties.is_some()
        || schema.min_properties.is_some()
        || schema.values.is_some()
        || schema.additional_properties.is_some()
        || !schema.all_of.is_empty()
        || !schema.any_of.is_empty()
        || !schema.one_of.is_empty()
        || schema.not.is_some()
        || schema.embedded_resource
        || schema.int_or_string
        || schema.list_type.is_some()
        || !schema.list_map_keys.is_empty()
        || schema.map_type.is_some()
        || !schema.id.is_empty()
        || !schema.schema.is_empty()
        || schema.reference.is_some()
        || !schema.definitions.is_empty()
        || !schema.dependencies.is_empty()
        || !schema.pattern_properties.is_empty()
        || schema.additional_items.is_some();
    if forbidden {
        errors.push(FieldError::invalid(
            path,
            "",
            "only [Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields XValidations] fields are allowed at the root of the schema if the status subresource is enabled",
        ));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

fn invariants(schema: &Schema, level: Level, path: &str, errors: &mut FieldErrors) {
    let at = |name: &str| format!("{path}.{name}");
    let property = |name: &str| format!("{path}.properties[{name}]");
    if schema.kind == "array" && schema.items.is_none() {
        errors.push(FieldError::required(at("items"), "must be specified"));
    }
    if let Some(element) = schema.element() {
        invariants(element, Level::Item, &at("items"), errors);
    }
    for (name, field) in &schema.properties {
        invariants(field, Level::Field, &property(name), errors);
    }
    if let Some(additional) = &schema.additional_properties {
        let place = at("additionalProperties");
        if level == Level::Root {
            errors.push(FieldError::forbidden(
                place.clone(),
                "must not be used at the root",
            ));
        }
        if let Some(additional) = additional.schema() {
            invariants(additional, Level::Field, &place, errors);
        }
    }
    if schema.int_or_string && schema.preserves() {
        errors.push(FieldError::invalid(
            at("x-kubernetes-preserve-unknown-fields"),
            true,
            "must be false if x-kubernetes-int-or-string is true",
        ));
    }
    if schema.int_or_string && schema.embedded_resource {
        errors.push(FieldError::invalid(
            at("x-kubernetes-embedded-resource"),
            true,
            "must be false if x-kubernetes-int-or-string is true",
        ));
    }
    junctors(schema, path, errors);
    if schema.embedded_resource && schema.kind != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(if schema.kind.is_empty() {
            FieldError::required(at("type"), why)
        } else {
            FieldError::invalid(at("type"), &schema.kind, why)
        });
    } else if schema.kind.is_empty() && !schema.int_or_string && !schema.preserves() {
        let why = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(FieldError::required(at("type"), why));
    }
    if schema.embedded_resource && schema.additional_properties.is_some() {
        errors.push(FieldError::forbidden(
            at("additionalProperties"),
            "must not be used if x-kubernetes-embedded-resource is set",
        ));
    }
    if level == Level::Root && !schema.kind.is_empty() && schema.kind != "object" {
        errors.push(FieldError::invalid(
            at("type"),
            &schema.kind,
            "must be object at the root",
        ));
    }
    let resource = level == Level::Root || schema.embedded_resource;
    if resource {
        for name in ["kind", "apiVersion"] {
            if let Some(field) = schema.properties.get(name).filter(|f| f.kind != "string") {
                let place = format!("{}.type", property(name));
                errors.push(FieldError::invalid(place, &field.kind, "must be string"));
            }
        }
    }
    if let Some(metadata) = schema.properties.get("metadata") {
        let place = property("metadata");
        if resource && metadata.kind != "object" {
            let place = format!("{place}.type");
            errors.push(FieldError::invalid(place, &metadata.kind, "must be object"));
        }
        if level == Level::Root && !only_names(metadata) {
            errors.push(FieldError::forbidden(
                place,
                "must not specify anything other than name and generateName, but metadata is implicitly specified",
            ));
        }
    }
    if schema.embedded_resource && !schema.preserves() && schema.properties.is_empty() {
        errors.push(FieldError::required(
            at("properties"),
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ));
    }
}

/// Whether a schema of `metadata` is about names at most.
fn only_names(metadata: &Schema) -> bool {
    let names = metadata
        .properties
        .keys()
        .all(|name| matches!(name.as_str(), "name" | "generateName"));
    names
        && metadata.description.is_empty()
        && metadata.title.is_empty()
        && metadata.additional_properties.is_none()
        && metadata.items.is_none()
        && metadata.required.is_empty()
        && metadata.values.is_none()
        && !metadata.nullable
        && !metadata.embedded_resource
        && metadata.preserve_unknown_fields.is_none()
        && metadata.all_of.is_empty()
        && metadata.any_of.is_empty()
        && metadata.one_of.is_empty()
        && metadata.not.is_none()
        && metadata.rules.is_empty()
        && metadata.max_properties.is_none()
        && metadata.min_properties.is_none()
        && metadata.map_type.is_none()
}

/// `anyOf: [{type: integer}, {type: string}]`, which may stand beside `x-kubernetes-int-or-string`.
fn is_int_or_string(any_of: &[Schema]) -> bool {
    let plain = |schema: &Schema, kind: &str| {
        schema.kind == kind && schema.properties.is_empty() && schema.all_of.is_empty()
    };
    matches!(any_of, [a, b] if plain(a, "integer") && plain(b, "string"))
}

/// The junctors of a schema, and its pattern.
fn junctors(schema: &Schema, path: &str, errors: &mut FieldErrors) {
    let skip_any = schema.int_or_string && is_int_or_string(&schema.any_of);
    let skip_first = schema.int_or_string
        && schema
            .all_of
            .first()
            .is_some_and(|first| is_int_or_string(&first.any_of));
    value_validation(schema, path, skip_any, skip_first, errors);
}

fn value_validation(
    schema: &Schema,
    path: &str,
    skip_any: bool,
    skip_first: bool,
    errors: &mut FieldErrors,
) {
    if !skip_any {
        for (i, one) in schema.any_of.iter().enumerate() {
            nested(one, &format!("{path}.anyOf[{i}]"), false, errors);
        }
    }
    for (i, one) in schema.all_of.iter().enumerate() {
        nested(
            one,
            &format!("{path}.allOf[{i}]"),
            skip_first && i == 0,
            errors,
        );
    }
    for (i, one) in schema.one_of.iter().enumerate() {
        nested(one, &format!("{path}.oneOf[{i}]"), false, errors);
    }
    if let Some(not) = &schema.not {
        nested(not, &format!("{path}.not"), false, errors);
    }
    if let Some(pattern) = &schema.pattern
        && let Err(e) = &pattern.compiled
    {
        let why = format!("must be a valid regular expression, but isn't: {e}");
        errors.push(FieldError::invalid(
            format!("{path}.pattern"),
            &pattern.text,
            &why,
        ));
    }
}

/// A schema in a junctor: it may restrict values, and define nothing.
fn nested(schema: &Schema, path: &str, skip_any: bool, errors: &mut FieldErrors) {
    value_validation(schema, path, skip_any, false, errors);
    let at = |name: &str| format!("{path}.{name}");
    if let Some(element) = schema.element() {
        nested(element, &at("items"), false, errors);
    }
    for (name, field) in &schema.properties {
        nested(field, &format!("{path}.properties[{name}]"), false, errors);
    }
    let mut forbid = |wrong: bool, name: &str, why: &str| {
        if wrong {
            errors.push(FieldError::forbidden(at(name), why));
        }
    };
    let (empty, undefined, off) = (
        "must be empty to be structural",
        "must be undefined to be structural",
        "must be false to be structural",
    );
    forbid(!schema.kind.is_empty(), "type", empty);
    forbid(
        schema.additional_properties.is_some(),
        "additionalProperties",
        undefined,
    );
    forbid(schema.default.is_some(), "default", undefined);
    forbid(!schema.title.is_empty(), "title", empty);
    forbid(!schema.description.is_empty(), "description", empty);
    forbid(schema.nullable, "nullable", off);
    forbid(
        schema.preserves(),
        "x-kubernetes-preserve-unknown-fields",
        off,
    );
    forbid(
        schema.embedded_resource,
        "x-kubernetes-embedded-resource",
        off,
    );
    forbid(schema.int_or_string, "x-kubernetes-int-or-string", off);
    forbid(
        !schema.list_map_keys.is_empty(),
        "x-kubernetes-list-map-keys",
        empty,
    );
    forbid(
        schema.list_type.is_some(),
        "x-kubernetes-list-type",
        undefined,
    );
    forbid(
        schema.map_type.is_some(),
        "x-kubernetes-map-type",
        undefined,
    );
    forbid(!schema.rules.is_empty(), "x-kubernetes-validations", empty);
    forbid(
        schema.properties.contains_key("metadata"),
        "properties[metadata]",
        "must not be specified in a nested context",
    );
}

/// What junctors speak of must be there outside of them.
fn completeness(
    restricting: &Schema,
    defining: &Schema,
    defined_at: &str,
    path: &str,
    errors: &mut FieldErrors,
) {
    let mut each = |one: &Schema, at: String| {
        nested_completeness(one, Some(defining), defined_at, &at, errors);
    };
    if let Some(not) = &restricting.not {
        each(not, format!("{path}.not"));
    }
    for (name, list) in [
        ("allOf", &restricting.all_of),
        ("anyOf", &restricting.any_of),
        ("oneOf", &restricting.one_of),
    ] {
        for (i, one) in list.iter().enumerate() {
            each(one, format!("{path}.{name}[{i}]"));
        }
    }
}

fn nested_completeness(
    restricting: &Schema,
    defining: Option<&Schema>,
    defined_at: &str,
    path: &str,
    errors: &mut FieldErrors,
) {
    let Some(defining) = defining else {
        let why = format!("because it is defined in {path}");
        errors.push(FieldError::required(defined_at, &why));
        return;
    };
    completeness(restricting, defining, defined_at, path, errors);
    if let Some(element) = restricting.element() {
        nested_completeness(
            element,
            defining.element(),
            &format!("{defined_at}.items"),
            &format!("{path}.items"),
            errors,
        );
    }
    for (name, field) in &restricting.properties {
        nested_completeness(
            field,
            defining.properties.get(name),
            &format!("{defined_at}.properties[{name}]"),
            &format!("{path}.properties[{name}]"),
            errors,
        );
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Root,
    Inside,
    Meta,
}

/// Defaults have no unknown fields and are what their schema says.
fn defaults(schema: &Schema, path: &str, place: Place, errors: &mut FieldErrors) {
    if let Some(default) = &schema.default {
        let at = format!("{path}.default");
        let mut pruned = default.clone();
        if place == Place::Inside {
            prune::prune(&mut pruned, schema, false);
        }
        if pruned != *default {
            errors.push(FieldError::invalid(
                at.clone(),
                default,
                "must not have unknown fields",
            ));
        }
        let mut wrong = embedded::validate(default, schema, &at);
        if wrong.is_empty() {
            wrong = value::validate(default, schema, None, &at);
        }
        errors.extend(wrong);
    }
    if let Some(element) = schema.element() {
        defaults(element, &format!("{path}.items"), inside(place), errors);
    }
    for (name, field) in &schema.properties {
        let resource = place == Place::Root || schema.embedded_resource;
        let is_meta = resource && matches!(name.as_str(), "metadata" | "apiVersion" | "kind");
        let place = if is_meta { Place::Meta } else { inside(place) };
        defaults(field, &format!("{path}.properties[{name}]"), place, errors);
    }
}

fn inside(place: Place) -> Place {
    match place {
        Place::Root | Place::Inside => Place::Inside,
        Place::Meta => Place::Meta,
    }
}

/// What the walk over all schemas knows of where it is.
#[derive(Clone)]
struct Context {
    root: bool,
    /// In the type or metadata of a resource.
    meta: bool,
    /// Why there may be no defaults.
    no_defaults: Option<String>,
}

struct Walk<'a> {
    errors: &'a mut FieldErrors,
}

impl Walk<'_> {
    fn forbid(&mut self, wrong: bool, place: String, why: &str) {
        if wrong {
            self.errors.push(FieldError::forbidden(place, why));
        }
    }

    fn wrong(&mut self, place: String, value: impl serde::Serialize, why: &str) {
        self.errors.push(FieldError::invalid(place, value, why));
    }

    fn missing(&mut self, place: String, why: &str) {
        self.errors.push(FieldError::required(place, why));
    }

    fn schema(&mut self, schema: &Schema, path: &str, context: &Context) {
        let at = |name: &str| format!("{path}.{name}");
        if !schema.kind.is_empty() && !TYPES.contains(&schema.kind.as_str()) {
            self.errors
                .push(FieldError::not_supported(at("type"), &schema.kind, &TYPES));
        }
        if let (Some(_), Some(reason)) = (&schema.default, &context.no_defaults) {
            self.forbid(true, at("default"), &format!("must not be set {reason}"));
        }
        self.unsupported(schema, path, context);
        self.children(schema, path, context);
        self.extensions(schema, path);
        self.rules(schema, path);
    }

    fn unsupported(&mut self, schema: &Schema, path: &str, context: &Context) {
        let at = |name: &str| format!("{path}.{name}");
        self.forbid(!schema.id.is_empty(), at("id"), "id is not supported");
        self.forbid(
            schema.additional_items.is_some(),
            at("additionalItems"),
            "additionalItems is not supported",
        );
        self.forbid(
            !schema.pattern_properties.is_empty(),
            at("patternProperties"),
            "patternProperties is not supported",
        );
        self.forbid(
            !schema.definitions.is_empty(),
            at("definitions"),
            "definitions is not supported",
        );
        self.forbid(
            !schema.dependencies.is_empty(),
            at("dependencies"),
            "dependencies is not supported",
        );
        self.forbid(
            schema.reference.is_some(),
            at("$ref"),
            "$ref is not supported",
        );
        self.forbid(
            schema.kind == "null",
            at("type"),
            "type cannot be set to null, use nullable as an alternative",
        );
        self.forbid(
            matches!(schema.items, Some(Items::Each(_))),
            at("items"),
            "items must be a schema object and not an array",
        );
        self.forbid(
            context.meta && schema.embedded_resource,
            at("x-kubernetes-embedded-resource"),
            "must not be used inside of resource meta",
        );
        self.forbid(
            schema.unique_items,
            at("uniqueItems"),
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        );
    }

    fn children(&mut self, schema: &Schema, path: &str, context: &Context) {
        let at = |name: &str| format!("{path}.{name}");
        let below = Context {
            root: false,
            ..context.clone()
        };
        if let Some(additional) = &schema.additional_properties {
            let exclusive = !matches!(additional, Additional::Allowed(true));
            self.forbid(
                exclusive && !schema.properties.is_empty(),
                at("additionalProperties"),
                "additionalProperties and properties are mutual exclusive",
            );
            if let Some(additional) = additional.schema() {
                let mut below = below.clone();
                if context.meta {
                    below.no_defaults =
                        Some("inside additionalProperties applying to object metadata".to_owned());
                }
                self.schema(additional, &at("additionalProperties"), &below);
            }
        }
        for (name, field) in &schema.properties {
            let mut below = below.clone();
            let resource = context.root || schema.embedded_resource;
            if resource && matches!(name.as_str(), "metadata" | "kind" | "apiVersion") {
                below.meta = true;
                if context.root {
                    below.no_defaults = Some(format!("in top-level {name}"));
                }
            }
            self.schema(field, &format!("{path}.properties[{name}]"), &below);
        }
        if let Some(not) = &schema.not {
            self.schema(not, &at("not"), &below);
        }
        for (name, list) in [
            ("allOf", &schema.all_of),
            ("oneOf", &schema.one_of),
            ("anyOf", &schema.any_of),
        ] {
            for (i, one) in list.iter().enumerate() {
                self.schema(one, &format!("{path}.{name}[{i}]"), &below);
            }
        }
        match &schema.items {
            Some(Items::One(one)) => self.schema(one, &at("items"), &below),
            Some(Items::Each(each)) => {
                for (i, one) in each.iter().enumerate() {
                    self.schema(one, &format!("{path}.items[{i}]"), &below);
                }
            }
            None => {}
        }
    }

    fn extensions(&mut self, schema: &Schema, path: &str) {
        let at = |name: &str| format!("{path}.{name}");
        if schema.preserve_unknown_fields == Some(false) {
            self.wrong(
                at("x-kubernetes-preserve-unknown-fields"),
                false,
                "must be true or undefined",
            );
        }
        if let Some(map_type) = schema.map_type.as_deref() {
            self.of_type(
                schema,
                path,
                "object",
                "must be object if x-kubernetes-map-type is specified",
            );
            let known = ["atomic", "granular"];
            if !known.contains(&map_type) {
                self.errors.push(FieldError::not_supported(
                    at("x-kubernetes-map-type"),
                    map_type,
                    &known,
                ));
            }
        }
        let element = schema.element();
        if let Some(list_type) = schema.list_type.as_deref() {
            if schema.kind != "array" {
                self.of_type(
                    schema,
                    path,
                    "array",
                    "must be array if x-kubernetes-list-type is specified",
                );
            } else if let ("set", Some(element)) = (list_type, element) {
                let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
                let other_list = element.list_type.as_deref().is_some_and(|t| t != "atomic");
                if element.kind == "array" && other_list {
                    self.wrong(at("items.x-kubernetes-list-type"), &element.list_type, why);
                } else if element.kind == "object" && element.map_type.as_deref() != Some("atomic")
                {
                    self.wrong(at("items.x-kubernetes-map-type"), &element.list_type, why);
                }
            }
            let known = ["atomic", "set", "map"];
            if !known.contains(&list_type) {
                self.errors.push(FieldError::not_supported(
                    at("x-kubernetes-list-type"),
                    list_type,
                    &known,
                ));
            }
        }
        if !schema.list_map_keys.is_empty() {
            let why = "must be map if x-kubernetes-list-map-keys is non-empty";
            match schema.list_type.as_deref() {
                None => self.missing(at("x-kubernetes-list-type"), why),
                Some("map") => {}
                Some(other) => self.wrong(at("x-kubernetes-list-type"), other, why),
            }
        }
        if schema.list_type.as_deref() == Some("map") {
            self.list_map(schema, path);
        }
        if let (Some(list_type @ ("set" | "map")), Some(element)) =
            (schema.list_type.as_deref(), element)
        {
            self.forbid(
                element.nullable,
                at("items.nullable"),
                &format!("cannot be nullable when x-kubernetes-list-type is {list_type}"),
            );
        }
    }

    fn of_type(&mut self, schema: &Schema, path: &str, wanted: &str, why: &str) {
        let place = format!("{path}.type");
        if schema.kind.is_empty() {
            self.missing(place, why);
        } else if schema.kind != wanted {
            self.wrong(place, &schema.kind, why);
        }
    }

    fn list_map(&mut self, schema: &Schema, path: &str) {
        let at = |name: &str| format!("{path}.{name}");
        let keys = &schema.list_map_keys;
        if keys.is_empty() {
            self.missing(
                at("x-kubernetes-list-map-keys"),
                "must not be empty if x-kubernetes-list-type is map",
            );
        }
        let Some(element) = schema.element() else {
            if schema.items.is_none() {
                self.missing(
                    at("items"),
                    "must have a schema if x-kubernetes-list-type is map",
                );
            } else {
                self.wrong(
                    at("items"),
                    json!({}),
                    "must only have a single schema if x-kubernetes-list-type is map",
                );
            }
            return;
        };
        if element.kind != "object" {
            self.wrong(
                at("items.type"),
                &element.kind,
                "must be object if parent array's x-kubernetes-list-type is map",
            );
            return;
        }
        for (i, key) in keys.iter().enumerate() {
            let property = format!("{path}.items.properties[{key}]");
            match element.properties.get(key) {
                Some(field) => {
                    if matches!(field.kind.as_str(), "array" | "object") {
                        self.wrong(
                            format!("{property}.type"),
                            &element.kind,
                            "must be a scalar type if parent array's x-kubernetes-list-type is map",
                        );
                    }
                }
                None => self.wrong(
                    at("x-kubernetes-list-map-keys"),
                    keys,
                    "entries must all be names of item properties",
                ),
            }
            if keys[..i].contains(key) {
                self.wrong(
                    at("x-kubernetes-list-map-keys"),
                    keys,
                    "must not contain duplicate entries",
                );
            }
        }
        for key in keys {
            let property = format!("{path}.items.properties[{key}]");
            let Some(field) = element.properties.get(key) else {
                continue;
            };
            if !element.required.contains(key) && field.default.is_none() {
                self.missing(
                    format!("{property}.default"),
                    "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
                );
            }
            self.forbid(
                field.nullable,
                format!("{property}.nullable"),
                "this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
            );
        }
    }

    fn rules(&mut self, schema: &Schema, path: &str) {
        let broken = |text: &str| text.contains(['\n', '\r']);
        for (i, rule) in schema.rules.iter().enumerate() {
            let at = |name: &str| format!("{path}.x-kubernetes-validations[{i}].{name}");
            for (name, text) in [
                ("rule", &rule.rule),
                ("messageExpression", &rule.message_expression),
            ] {
                if !text.trim().is_empty()
                    && let Err(e) = rules::check(text)
                {
                    let why = format!("compilation failed: {e}");
                    self.wrong(at(name), text, &why);
                }
            }
            let (text, message) = (rule.rule.trim(), rule.message.trim());
            if text.is_empty() {
                self.missing(at("rule"), "rule is not specified");
            } else if !rule.message.is_empty() && message.is_empty() {
                self.wrong(
                    at("message"),
                    &rule.message,
                    "must be non-empty if specified",
                );
            } else if broken(message) {
                self.wrong(at("message"), &rule.message, "must not contain line breaks");
            } else if broken(text) && message.is_empty() {
                self.missing(
                    at("message"),
                    "message must be specified if rule contains line breaks",
                );
            }
            if !rule.message_expression.is_empty() && rule.message_expression.trim().is_empty() {
                self.missing(
                    at("messageExpression"),
                    "messageExpression must be non-empty if specified",
                );
            }
            if let Some(reason) = rule.reason.as_deref()
                && !REASONS.contains(&reason)
            {
                self.errors
                    .push(FieldError::not_supported(at("reason"), reason, &REASONS));
            }
            if !rule.field_path.is_empty() {
                if rule.field_path.trim().is_empty() {
                    self.wrong(
                        at("fieldPath"),
                        &rule.field_path,
                        "must be non-empty if specified",
                    );
                }
                if broken(&rule.field_path) {
                    self.wrong(
                        at("fieldPath"),
                        &rule.field_path,
                        "must not contain line breaks",
                    );
                }
                if follow(schema, &rule.field_path).is_err() {
                    self.wrong(at("fieldPath"), &rule.field_path, "must be a valid path");
                }
            }
        }
    }
}

/// The schema of the field at a path such as `.spec.ports['http']`, and its names.
///
/// # Errors
/// What is wrong with the path.
pub fn follow<'a>(schema: &'a Schema, path: &str) -> Result<(Vec<String>, &'a Schema), String> {
    let (mut names, mut at, mut rest) = (Vec::new(), schema, path);
    if !path.starts_with(['.', '[']) {
        return Err(format!("expected [ or . but got: {path}"));
    }
    while !rest.is_empty() {
        let name;
        if let Some(after) = rest.strip_prefix("['") {
            let end = after.find("']").ok_or("unexpected end of JSON path")?;
            (name, rest) = (after[..end].to_owned(), &after[end + 2..]);
        } else if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            (name, rest) = (after[..end].to_owned(), &after[end..]);
        } else {
            return Err(format!("expected [ or . but got: {rest}"));
        }
        if name.is_empty() {
            return Err("unexpected end of JSON path".to_owned());
        }
        at = at
            .field(&name)
            .ok_or_else(|| format!("does not refer to a valid field: {name}"))?;
        names.push(name);
    }
    Ok((names, at))
}

/// What whoever writes the schema is warned of: formats that mean nothing, sets whose elements are no scalars.
pub fn warnings(schema: &Schema) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    schema.any(&mut |s| {
        let known = s.format.is_empty()
            || super::formats::check(&s.format, "").is_some()
            || matches!(s.format.as_str(), "int32" | "int64" | "float" | "double");
        if !known {
            found.push(format!("unrecognized format {:?}", s.format));
        }
        for rule in &s.rules {
            if let Some(function) = rules::not_run(&rule.rule) {
                found.push(format!(
                    "x-kubernetes-validations: the rule {:?} is stored but not run: this server has no function {function}",
                    rule.rule
                ));
            }
        }
        let element = s.element().filter(|_| s.list_type.as_deref() == Some("set"));
        if let Some(element) = element.filter(|e| matches!(e.kind.as_str(), "object" | "array")) {
            found.push(format!(
                "x-kubernetes-list-type: set for items of type {:?} is not supported by server-side apply or CEL validation rules",
                element.kind
            ));
        }
        false
    });
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn errors(schema: Value) -> Vec<String> {
        let schema = Schema::read(&schema).unwrap();
        validate(&schema, "s", false)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn what_is_not_structural_is_refused() {
        for (schema, expected) in [
            (
                json!({}),
                "s.type: Required value: must not be empty at the root",
            ),
            (
                json!({"type": "string"}),
                r#"s.type: Invalid value: "string": must be object at the root"#,
            ),
            (
                json!({"type": "object", "properties": {"a": {}}}),
                "s.properties[a].type: Required value: must not be empty for specified object fields",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "array"}}}),
                "s.properties[a].items: Required value: must be specified",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "array", "items": {}}}}),
                "s.properties[a].items.type: Required value: must not be empty for specified array items",
            ),
            (
                json!({"type": "object", "additionalProperties": {"type": "string"}}),
                "s.additionalProperties: Forbidden: must not be used at the root",
            ),
            (
                json!({"type": "object", "anyOf": [{"properties": {"b": {"minimum": 1}}}]}),
                "s.properties[b]: Required value: because it is defined in s.anyOf[0].properties[b]",
            ),
            (
                json!({"type": "object", "properties": {"b": {"type": "string"}}, "anyOf": [{"properties": {"b": {"type": "string"}}}]}),
                "s.anyOf[0].properties[b].type: Forbidden: must be empty to be structural",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}),
                "s.properties[a].pattern",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "banana"}}}),
                r#"s.properties[a].type: Unsupported value: "banana": supported values: "array", "boolean", "integer", "number", "object", "string""#,
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}}),
                r#"s.properties[a].default: Invalid value: "string": s.properties[a].default in body must be of type integer: "string""#,
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "object", "default": {"x": 1}}}}),
                r#"s.properties[a].default: Invalid value: {"x":1}: must not have unknown fields"#,
            ),
            (
                json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
                "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "array", "uniqueItems": true, "items": {"type": "string"}}}}),
                "s.properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "object", "$ref": "x"}}}),
                "s.properties[a].$ref: Forbidden: $ref is not supported",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "string"}}, "additionalProperties": {"type": "string"}}}}),
                "s.properties[a].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "object", "x-kubernetes-preserve-unknown-fields": false}}}),
                "s.properties[a].x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined",
            ),
            (
                json!({"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"], "items": {"type": "object", "properties": {"n": {"type": "string"}}}}}}),
                "s.properties[a].items.properties[n].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ),
            (
                json!({"type": "object", "x-kubernetes-validations": [{"rule": " "}]}),
                "s.x-kubernetes-validations[0].rule: Required value: rule is not specified",
            ),
        ] {
            let found = errors(schema.clone());
            assert_eq!(found.len(), 1, "{schema}: {found:?}");
            // The value of a default that is wrong is told with the path of the default alone.
            let found = found[0].replace("s.properties[a].default in body", "@ in body");
            let expected = expected.replace("s.properties[a].default in body", "@ in body");
            let found = found.replace(":  in body", ": @ in body");
            assert!(found.starts_with(&expected), "{found}\n{expected}");
        }
    }

    #[test]
    fn usual_schemas_are_structural() {
        let schema = json!({"type": "object", "required": ["spec"], "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"},
            "spec": {"type": "object", "properties": {
                "replicas": {"type": "integer", "default": 1, "minimum": 0},
                "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                "quantity": {"x-kubernetes-int-or-string": true, "allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}], "pattern": "^[0-9]+$"},
                "free": {"x-kubernetes-preserve-unknown-fields": true},
                "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}},
            }, "oneOf": [{"required": ["replicas"]}, {"required": ["port"]}]},
        }});
        assert_eq!(errors(schema), [""; 0]);
    }
}
