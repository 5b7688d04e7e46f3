//! The command line: arguments as typed, resolved options, one file per command. Imports everything, imported by nobody.
