//! Prints the table of kinds for the documentation.

fn main() {
    print!("{}", regent_kinds::kind::page());
}
