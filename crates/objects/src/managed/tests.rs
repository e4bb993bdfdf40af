//! Who owns which field after which write.
