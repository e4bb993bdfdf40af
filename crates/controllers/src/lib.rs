//! Loops that turn objects into objects: endpoints, replicas, scheduling, namespaces, garbage.
