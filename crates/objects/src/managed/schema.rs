//! The types of objects as merging needs them: which lists are sets, maps or one value, and what structs hold.
//!
//! Made from OpenAPI with Kubernetes' extensions, so that built-in kinds and the structural schemas of
//! CustomResourceDefinitions come the same way. Source: `k8s.io/kube-openapi/pkg/schemaconv`, and KEP-555.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use serde_json::{Map as JsonMap, Value};

/// All types that an object consists of.
#[derive(Debug)]
pub struct Schema {
    atoms: Vec<Atom>,
    root: TypeRef,
}

/// A type of a [`Schema`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeRef(u32);

/// What a value of a type may be; a type without a schema may be several things.
#[derive(Debug, Clone, Default)]
pub(super) struct Atom {
    pub(super) scalar: Option<Scalar>,
    pub(super) list: Option<List>,
    pub(super) map: Option<Map>,
}

/// Which of its forms a value has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Scalar,
    List,
    Map,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    Numeric,
    String,
    Boolean,
    Untyped,
}

#[derive(Debug, Clone)]
pub(super) struct List {
    pub(super) element: TypeRef,
    pub(super) relation: Relation,
}

/// How the elements of a list belong together.
#[derive(Debug, Clone)]
pub(super) enum Relation {
    /// The list is one value.
    Atomic,
    /// Each plain value is an element of its own.
    Set,
    /// Elements are told apart by these fields; some have a value when they are left out.
    Map(Vec<(Arc<str>, Option<Value>)>),
}

#[derive(Debug, Clone)]
pub(super) struct Map {
    /// Sorted by name.
    fields: Vec<Field>,
    /// The type of what is under other names, if there may be any.
    pub(super) values: Option<TypeRef>,
    /// Whether the whole is one value.
    pub(super) atomic: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) name: Arc<str>,
    pub(super) of: TypeRef,
    pub(super) zero: Zero,
}

/// What Go's type has in a field that was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zero {
    /// Nothing.
    Absent,
    /// An empty struct: the field is no pointer.
    Struct,
    /// `null`: a list without `omitempty`.
    Null,
}

impl Map {
    pub(super) fn field(&self, name: &str) -> Option<&Field> {
        self.fields
            .binary_search_by(|f| (*f.name).cmp(name))
            .ok()
            .map(|at| &self.fields[at])
    }

    /// The type of what is under the name.
    pub(super) fn of(&self, name: &str) -> Option<TypeRef> {
        self.field(name).map(|f| f.of).or(self.values)
    }

    /// Fields that Go's type has something in even when they were left out.
    pub(super) fn never_absent(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|f| f.zero != Zero::Absent)
    }

    /// Whether nothing at all is known of it.
    pub(super) fn is_deduced(&self) -> bool {
        self.fields.is_empty() && self.values == Some(DEDUCED)
    }
}

impl Atom {
    /// Which form a value of this type is to be treated as; what does not fit any is treated as the first there is.
    pub(super) fn form(&self, value: Option<&Value>) -> Option<Form> {
        let fits = match value {
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
                self.scalar.map(|_| Form::Scalar)
            }
            Some(Value::Array(_)) => self.list.as_ref().map(|_| Form::List),
            Some(Value::Object(_)) => self.map.as_ref().map(|_| Form::Map),
            Some(Value::Null) | None => None,
        };
        fits.or_else(|| self.map.as_ref().map(|_| Form::Map))
            .or_else(|| self.scalar.map(|_| Form::Scalar))
            .or_else(|| self.list.as_ref().map(|_| Form::List))
    }
}

/// Anything: maps by their keys, lists as one value.
const DEDUCED: TypeRef = TypeRef(0);
/// Anything, as one value.
const UNTYPED: TypeRef = TypeRef(1);

fn deduced_atoms() -> Vec<Atom> {
    let atom = |values: TypeRef, atomic: bool| Atom {
        scalar: Some(Scalar::Untyped),
        list: Some(List {
            element: UNTYPED,
            relation: Relation::Atomic,
        }),
        map: Some(Map {
            fields: Vec::new(),
            values: Some(values),
            atomic,
        }),
    };
    vec![atom(DEDUCED, false), atom(UNTYPED, true)]
}

impl Schema {
    /// What is known of objects without a schema: maps merge by their keys, lists are one value.
    pub fn deduced() -> Arc<Self> {
        static MADE: LazyLock<Arc<Schema>> = LazyLock::new(|| {
            Arc::new(Schema {
                atoms: deduced_atoms(),
                root: DEDUCED,
            })
        });
        Arc::clone(&MADE)
    }

    /// Reads an OpenAPI schema with Kubernetes' extensions. `resolve` finds what a `$ref` names, by the name after the
    /// last slash. `x-kubernetes-list-type`, `x-kubernetes-list-map-keys`, `x-kubernetes-map-type`,
    /// `x-kubernetes-int-or-string`, `x-kubernetes-preserve-unknown-fields` and `x-kubernetes-embedded-resource` are
    /// heeded; a field whose schema has the default `{}` is never absent in Go. `metadata`, if given, is the type of the field of this name of the root and of embedded
    /// resources, whatever their own schemas say.
    pub fn from_openapi<'a>(
        root: &'a Value,
        metadata: Option<&'a Value>,
        resolve: &dyn Fn(&str) -> Option<&'a Value>,
    ) -> Self {
        let mut compiler = Compiler {
            atoms: deduced_atoms(),
            named: HashMap::new(),
            metadata,
            resolve,
        };
        let root = compiler.compile(root, metadata.is_some());
        Self {
            atoms: compiler.atoms,
            root,
        }
    }

    /// The type of the object itself.
    pub fn root(&self) -> TypeRef {
        self.root
    }

    pub(super) fn atom(&self, of: TypeRef) -> &Atom {
        &self.atoms[of.0 as usize]
    }
}

struct Compiler<'a, 'r> {
    atoms: Vec<Atom>,
    named: HashMap<String, TypeRef>,
    metadata: Option<&'a Value>,
    resolve: &'r dyn Fn(&str) -> Option<&'a Value>,
}

fn text<'v>(schema: &'v Value, key: &str) -> Option<&'v str> {
    schema.get(key).and_then(Value::as_str)
}

fn is_set(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or(false)
}

impl<'a> Compiler<'a, '_> {
    fn add(&mut self, atom: Atom) -> TypeRef {
        let at = u32::try_from(self.atoms.len()).unwrap_or(0);
        self.atoms.push(atom);
        TypeRef(at)
    }

    fn compile(&mut self, schema: &'a Value, is_object: bool) -> TypeRef {
        if let Some(reference) = text(schema, "$ref") {
            let name = reference.rsplit('/').next().unwrap_or(reference);
            let of = self.named(name);
            return self.overridden(of, text(schema, "x-kubernetes-map-type"));
        }
        // OpenAPI v3 puts a reference that has something beside it into an `allOf`.
        if let Some([only]) = schema
            .get("allOf")
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            && only.get("$ref").is_some()
        {
            let of = self.compile(only, is_object);
            return self.overridden(of, text(schema, "x-kubernetes-map-type"));
        }
        let atom = self.atom(schema, is_object);
        self.add(atom)
    }

    fn named(&mut self, name: &str) -> TypeRef {
        if let Some(of) = self.named.get(name) {
            return *of;
        }
        let Some(schema) = (self.resolve)(name) else {
            return DEDUCED;
        };
        // Known before it is complete: types may contain themselves.
        let of = self.add(Atom::default());
        self.named.insert(name.to_owned(), of);
        let atom = if schema.get("$ref").is_some() {
            let target = self.compile(schema, false);
            self.atoms[target.0 as usize].clone()
        } else {
            self.atom(schema, false)
        };
        self.atoms[of.0 as usize] = atom;
        of
    }

    /// The type, with what a field that refers to it says of it.
    fn overridden(&mut self, of: TypeRef, map_type: Option<&str>) -> TypeRef {
        let atomic = match map_type {
            Some("atomic") => true,
            Some("granular") => false,
            _ => return of,
        };
        let mut atom = self.atoms[of.0 as usize].clone();
        match &mut atom.map {
            Some(map) if map.atomic != atomic => map.atomic = atomic,
            _ => return of,
        }
        self.add(atom)
    }

    fn atom(&mut self, schema: &'a Value, is_object: bool) -> Atom {
        if is_set(schema, "x-kubernetes-int-or-string") {
            return scalar(Scalar::Untyped);
        }
        let sort = match schema.get("type") {
            Some(Value::String(sort)) => Some(sort.as_str()),
            Some(Value::Array(sorts)) => sorts
                .iter()
                .filter_map(Value::as_str)
                .find(|sort| *sort != "null"),
            _ => None,
        };
        let properties = schema.get("properties").and_then(Value::as_object);
        match sort {
            Some("integer" | "number") => scalar(Scalar::Numeric),
            Some("boolean") => scalar(Scalar::Boolean),
            Some("string") => scalar(match text(schema, "format") {
                None | Some("byte") => Scalar::String,
                Some(_) => Scalar::Untyped,
            }),
            Some("array") => self.list(schema),
            _ if properties.is_some_and(|p| !p.is_empty()) || is_object => {
                self.object(schema, properties, is_object)
            }
            Some("object")
                if schema
                    .get("additionalProperties")
                    .is_some_and(Value::is_object) =>
            {
                self.object(schema, None, false)
            }
            Some("object") => {
                let mut atom = self.atoms[DEDUCED.0 as usize].clone();
                if text(schema, "x-kubernetes-map-type") == Some("atomic") {
                    atom = self.atoms[UNTYPED.0 as usize].clone();
                }
                Atom {
                    map: atom.map,
                    ..Atom::default()
                }
            }
            _ => self.atoms[DEDUCED.0 as usize].clone(),
        }
    }

    fn list(&mut self, schema: &'a Value) -> Atom {
        let element = match schema.get("items") {
            Some(items) => self.compile(items, false),
            None => UNTYPED,
        };
        let relation = match text(schema, "x-kubernetes-list-type") {
            Some("set") => Relation::Set,
            Some("map") => {
                let keys = schema
                    .get("x-kubernetes-list-map-keys")
                    .and_then(Value::as_array);
                let items = schema.get("items").map(|items| self.dereferenced(items));
                Relation::Map(
                    keys.into_iter()
                        .flatten()
                        .filter_map(Value::as_str)
                        .map(|key| (Arc::from(key), items.and_then(|i| default_of(i, key))))
                        .collect(),
                )
            }
            _ => Relation::Atomic,
        };
        Atom {
            list: Some(List { element, relation }),
            ..Atom::default()
        }
    }

    fn dereferenced(&self, schema: &'a Value) -> &'a Value {
        let single = schema
            .get("allOf")
            .and_then(Value::as_array)
            .and_then(|all| all.first());
        let reference = text(schema, "$ref").or_else(|| single.and_then(|s| text(s, "$ref")));
        reference
            .and_then(|r| (self.resolve)(r.rsplit('/').next().unwrap_or(r)))
            .unwrap_or(schema)
    }

    fn object(
        &mut self,
        schema: &'a Value,
        properties: Option<&'a JsonMap<String, Value>>,
        is_object: bool,
    ) -> Atom {
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let is_object = is_object || is_set(schema, "x-kubernetes-embedded-resource");
        let mut fields: Vec<Field> = Vec::new();
        for (name, property) in properties.into_iter().flatten() {
            if is_object
                && matches!(name.as_str(), "metadata" | "apiVersion" | "kind")
                && self.metadata.is_some()
            {
                continue;
            }
            let of = self.compile(property, false);
            let zero = match &self.atoms[of.0 as usize] {
                Atom { map: Some(_), .. }
                    if property
                        .get("default")
                        .and_then(Value::as_object)
                        .is_some_and(JsonMap::is_empty) =>
                {
                    Zero::Struct
                }
                Atom {
                    list: Some(list), ..
                } if self.metadata.is_none()
                    && required.contains(&name.as_str())
                    && !matches!(list.relation, Relation::Atomic) =>
                {
                    Zero::Null
                }
                _ => Zero::Absent,
            };
            fields.push(Field {
                name: Arc::from(name.as_str()),
                of,
                zero,
            });
        }
        if let (true, Some(metadata)) = (is_object, self.metadata) {
            let string = self.add(scalar(Scalar::String));
            let metadata = self.compile(metadata, false);
            for (name, of) in [
                ("apiVersion", string),
                ("kind", string),
                ("metadata", metadata),
            ] {
                fields.push(Field {
                    name: Arc::from(name),
                    of,
                    zero: Zero::Absent,
                });
            }
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        let values = match schema.get("additionalProperties") {
            Some(values @ Value::Object(_)) => Some(self.compile(values, false)),
            Some(Value::Bool(true)) => Some(DEDUCED),
            _ if is_set(schema, "x-kubernetes-preserve-unknown-fields") => Some(DEDUCED),
            _ => None,
        };
        Atom {
            map: Some(Map {
                fields,
                values,
                atomic: text(schema, "x-kubernetes-map-type") == Some("atomic"),
            }),
            ..Atom::default()
        }
    }
}

fn scalar(scalar: Scalar) -> Atom {
    Atom {
        scalar: Some(scalar),
        ..Atom::default()
    }
}

/// The default of a key field; an empty one is none.
fn default_of(items: &Value, key: &str) -> Option<Value> {
    let default = items.get("properties")?.get(key)?.get("default")?;
    let empty = match default {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    (!empty).then(|| default.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_type_that_contains_itself_is_read() {
        let tree = json!({"type": "object", "properties": {"left": {"$ref": "#/$defs/Tree"}}});
        let root = json!({"$ref": "#/$defs/Tree"});
        let schema = Schema::from_openapi(&root, None, &|name| (name == "Tree").then_some(&tree));
        let map = schema.atom(schema.root()).map.as_ref().expect("a struct");
        assert_eq!(map.of("left"), Some(schema.root()));
        assert_eq!(map.of("other"), None);
    }

    #[test]
    fn what_has_no_schema_may_be_anything() {
        let root = json!({"type": "object", "properties": {"any": {"x-kubernetes-preserve-unknown-fields": true}}});
        let schema = Schema::from_openapi(&root, None, &|_| None);
        let any = schema
            .atom(schema.root())
            .map
            .as_ref()
            .and_then(|m| m.of("any"));
        let atom = schema.atom(any.expect("a field"));
        assert_eq!(atom.form(Some(&json!([1]))), Some(Form::List));
        assert_eq!(atom.form(Some(&json!({}))), Some(Form::Map));
        assert_eq!(atom.form(Some(&json!(1))), Some(Form::Scalar));
    }
}
