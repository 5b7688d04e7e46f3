//! Pure: the manifest of what decides a result; hash and explanation are two visitors of it.
