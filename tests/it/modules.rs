//! The modules of the library and what each uses of the others, read with `syn`.
//!
//! A use is an import or a path in the code, followed through re-exports to the file that defines the item. A module
//! declaration and a re-export are no uses: with them the front file of a room only says what the room consists of.
//! Calls of methods are not seen; they need a value, whose type is named somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::buffer::{Cursor, TokenBuffer};
use syn::ext::IdentExt;
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, UseTree, Visibility};

use crate::source_text;

/// Module names from the root of the crate.
type Names = Vec<String>;

/// What stands after a module's path for all of its items.
const GLOB: &str = "*";

/// How many re-exports lead to an item at most.
const RE_EXPORTS: usize = 8;

/// A file, or a module inside of one.
#[derive(Default)]
pub struct Module {
    /// Relative to the repository.
    pub file: PathBuf,
    /// `["l7", "client"]` for `src/l7/client.rs`.
    pub name: Names,
    defined: BTreeSet<String>,
    /// The names that imports and re-exports bring, and where from.
    imports: BTreeMap<String, Names>,
    globs: Vec<Names>,
    /// The paths of private imports and of the code, as they are written.
    named: BTreeSet<Names>,
}

/// All modules, by name.
#[derive(Default)]
pub struct Library {
    modules: BTreeMap<Names, Module>,
}

impl Library {
    /// Everything below `src`, without tests.
    pub fn read() -> Self {
        let mut library = Self::default();
        for path in source_text::paths("src") {
            let text = std::fs::read_to_string(&path).expect("a source file is readable");
            let file = path.strip_prefix(source_text::root()).expect("below the repository");
            library.add(file, &text);
        }
        library
    }

    /// Reads a file's module, and those inside of it.
    pub fn add(&mut self, file: &Path, text: &str) {
        let syntax = syn::parse_file(text).unwrap_or_else(|it| panic!("{}: {it}", file.display()));
        self.add_module(file, module_name(file), &syntax.items);
    }

    fn add_module(&mut self, file: &Path, name: Names, items: &[Item]) {
        let module = Module { file: file.to_owned(), name: name.clone(), ..Module::default() };
        let mut reader = Reader { module, inner: Vec::new() };
        items.iter().for_each(|item| reader.visit_item(item));
        let Reader { module, inner } = reader;
        self.modules.insert(name.clone(), module);
        for (own, items) in inner {
            self.add_module(file, [name.as_slice(), &[own]].concat(), items);
        }
    }

    pub fn modules(&self) -> impl Iterator<Item = &Module> {
        self.modules.values()
    }

    /// The rooms that a module names: the first names of the paths that begin at the crate's root.
    pub fn rooms_used(&self, module: &Module) -> BTreeSet<String> {
        let imports = module.imports.values().chain(&module.globs);
        let from_root = |path: &Names| match self.start(module, path)? {
            (start, rest) if start.is_empty() => rest.first().cloned(),
            _ => None,
        };
        module.named.iter().chain(imports).filter_map(from_root).collect()
    }

    /// The other files that a module uses: those that define the items that it names.
    pub fn files_used(&self, module: &Module) -> BTreeSet<&Path> {
        let uses = module.named.iter().filter_map(|path| self.find(module, path, RE_EXPORTS));
        uses.map(|it| it.file.as_path()).filter(|file| *file != module.file).collect()
    }

    /// The module that a path leads away from, and what is left of the path there; `None` for a path that does not begin with
    /// the crate or a parent.
    fn start<'p>(&self, module: &Module, path: &'p [String]) -> Option<(Names, &'p [String])> {
        let first = path.first()?.as_str();
        if matches!(first, "crate" | "isthmus") {
            return Some((Names::new(), &path[1..]));
        }
        let parents = path.iter().take_while(|name| *name == "super").count();
        let own = usize::from(first == "self");
        let depth = module.name.len().checked_sub(parents)?;
        (parents + own > 0).then(|| (module.name[..depth].to_vec(), &path[parents + own..]))
    }

    /// The module that defines what a path means in `from`; `None` for a module itself, and for what is not ours.
    fn find(&self, from: &Module, path: &[String], left: usize) -> Option<&Module> {
        let (mut name, mut rest, explicit) = match self.start(from, path) {
            Some((start, rest)) => (start, rest, true),
            None => (from.name.clone(), path, false),
        };
        loop {
            let (next, after) = rest.split_first()?;
            let inner = [name.as_slice(), std::slice::from_ref(next)].concat();
            if self.modules.contains_key(&inner) {
                (name, rest) = (inner, after);
                continue;
            }
            let module = self.modules.get(&name)?;
            if next == GLOB || module.defined.contains(next) {
                return Some(module);
            }
            if let Some(target) = module.imports.get(next).filter(|_| left > 0) {
                // Definitions of an extern crate belong to no module here.
                return self.find(module, &[target, after].concat(), left - 1);
            }
            let imported = module.globs.iter().filter(|_| left > 0).find_map(|glob| {
                let path = [glob, rest].concat();
                self.find(module, &path, left - 1).filter(|it| it.defined.contains(next))
            });
            // What nobody else defines comes from a macro of the module.
            let moved = explicit || name != from.name;
            return imported.or_else(|| moved.then_some(module));
        }
    }
}

/// `src/l7/client.rs` is the module `l7::client`; the crate's root has no name.
fn module_name(file: &Path) -> Names {
    let inside = file.strip_prefix("src").unwrap_or(file).with_extension("");
    let names: Names = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if names == ["lib"] { Names::new() } else { names }
}

/// Collects what one module has.
struct Reader<'f> {
    module: Module,
    /// Modules whose items stand in the same file.
    inner: Vec<(String, &'f [Item])>,
}

impl Reader<'_> {
    fn import(&mut self, tree: &UseTree, before: &[String], exported: bool) {
        let path = |last: &syn::Ident| [before, &[last.unraw().to_string()]].concat();
        let (name, path) = match tree {
            UseTree::Path(it) => return self.import(&it.tree, &path(&it.ident), exported),
            UseTree::Group(it) => {
                return it.items.iter().for_each(|tree| self.import(tree, before, exported));
            }
            UseTree::Glob(_) => {
                self.module.globs.push(before.to_vec());
                (GLOB.to_owned(), [before, &[GLOB.to_owned()]].concat())
            }
            UseTree::Name(it) if it.ident == "self" => {
                (before.last().cloned().unwrap_or_default(), before.to_vec())
            }
            UseTree::Name(it) => (it.ident.unraw().to_string(), path(&it.ident)),
            UseTree::Rename(it) if it.ident == "self" => (it.rename.to_string(), before.to_vec()),
            UseTree::Rename(it) => (it.rename.unraw().to_string(), path(&it.ident)),
        };
        if !exported {
            self.module.named.insert(path.clone());
        }
        if name != GLOB {
            self.module.imports.insert(name, path);
        }
    }

    /// The paths among the tokens of a macro, which nothing else says how to read.
    fn tokens(&mut self, mut at: Cursor<'_>) {
        while !at.eof() {
            if let Some((first, mut next)) = at.ident() {
                let mut path = vec![first.unraw().to_string()];
                while let Some((name, after)) = colons(next).and_then(Cursor::ident) {
                    path.push(name.unraw().to_string());
                    next = after;
                }
                self.module.named.insert(path);
                at = next;
            } else if let Some((inside, _, _, next)) = at.any_group() {
                self.tokens(inside);
                at = next;
            } else if let Some((_, next)) = at.token_tree() {
                at = next;
            }
        }
    }
}

/// What follows `::`.
fn colons(at: Cursor<'_>) -> Option<Cursor<'_>> {
    let (first, next) = at.punct()?;
    let (second, next) = next.punct()?;
    (first.as_char() == ':' && second.as_char() == ':').then_some(next)
}

impl<'f> Visit<'f> for Reader<'f> {
    fn visit_item(&mut self, item: &'f Item) {
        let (attributes, name): (&[Attribute], _) = match item {
            Item::Const(it) => (&it.attrs, Some(&it.ident)),
            Item::Enum(it) => (&it.attrs, Some(&it.ident)),
            Item::Fn(it) => (&it.attrs, Some(&it.sig.ident)),
            Item::Macro(it) => (&it.attrs, it.ident.as_ref()),
            Item::Static(it) => (&it.attrs, Some(&it.ident)),
            Item::Struct(it) => (&it.attrs, Some(&it.ident)),
            Item::Trait(it) => (&it.attrs, Some(&it.ident)),
            Item::Type(it) => (&it.attrs, Some(&it.ident)),
            Item::Union(it) => (&it.attrs, Some(&it.ident)),
            Item::Impl(it) => (&it.attrs, None),
            Item::Mod(it) => (&it.attrs, None),
            Item::Use(it) => (&it.attrs, None),
            _ => (&[], None),
        };
        if is_test(attributes) {
            return;
        }
        self.module.defined.extend(name.map(|it| it.unraw().to_string()));
        match item {
            Item::Mod(it) => {
                if let Some((_, items)) = &it.content {
                    self.inner.push((it.ident.to_string(), items));
                }
            }
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_impl_item(&mut self, item: &'f ImplItem) {
        let test = matches!(item, ImplItem::Fn(it) if is_test(&it.attrs));
        if !test {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'f syn::ItemUse) {
        let exported = !matches!(item.vis, Visibility::Inherited);
        self.import(&item.tree, &[], exported);
    }

    fn visit_path(&mut self, path: &'f syn::Path) {
        if path.leading_colon.is_none() {
            let names = path.segments.iter().map(|it| it.ident.unraw().to_string());
            self.module.named.insert(names.collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'f syn::Macro) {
        self.visit_path(&item.path);
        self.tokens(TokenBuffer::new2(item.tokens.clone()).begin());
    }

    /// Says who may use an item, and uses nothing.
    fn visit_vis_restricted(&mut self, _: &'f syn::VisRestricted) {}

    fn visit_attribute(&mut self, _: &'f Attribute) {}
}

fn is_test(attributes: &[Attribute]) -> bool {
    let test = |it: &Attribute| it.parse_args::<syn::Ident>().is_ok_and(|name| name == "test");
    attributes.iter().any(|it| it.path().is_ident("cfg") && test(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn library(files: &[(&str, &str)]) -> Library {
        let mut library = Library::default();
        files.iter().for_each(|(file, text)| library.add(Path::new(file), text));
        library
    }

    fn used<'a>(library: &'a Library, file: &str) -> Vec<&'a str> {
        let module = library.modules().find(|it| it.file == Path::new(file)).expect("the module");
        library.files_used(module).into_iter().filter_map(Path::to_str).collect()
    }

    #[test]
    fn rooms_are_found_in_every_form() {
        let library = library(&[(
            "src/l4/inbound.rs",
            "use crate::pool::Pool;\nuse crate::{base::{Str, names}, model::Workload, world};\n\
             pub use super::super::sock;\nuse super::listen;\nfn a(b: crate::policy::Gate) {}\n\
             fn c() { let mycrate = x::crate_y; format!(\"{}\", [crate::route::D]); }\n\
             #[cfg(test)]\nmod tests { use crate::dns; }\n#[cfg(test)]\nuse crate::cni;",
        )]);
        let module = library.modules().next().expect("a module");
        let rooms = ["base", "model", "policy", "pool", "route", "sock", "world"];
        assert_eq!(library.rooms_used(module).into_iter().collect::<Vec<_>>(), rooms);
    }

    #[test]
    fn uses_are_followed_to_the_file_that_defines_the_item() {
        let library = library(&[
            (
                "src/a.rs",
                "mod b;\nmod c;\nmod d;\npub use b::B;\npub use c::*;\npub struct A;\nfn a() -> B {}",
            ),
            ("src/a/b.rs", "use super::A;\nuse super::d;\npub struct B;"),
            ("src/a/c.rs", "use super::B;\nfn c() { super::d::D::new(); }\npub struct C;"),
            (
                "src/a/d.rs",
                "use super::C;\nmod e { pub struct E; }\nuse e::E;\nmade!();\npub struct D;",
            ),
            ("src/f.rs", "use crate::a::d::Made;\nfn f() { x!(crate::a::B); }"),
            ("src/g.rs", "pub(in super::a) fn g() {}\n#[cfg(test)]\nfn h() -> crate::a::A {}"),
        ]);
        // A re-export counts where its file uses the name, too.
        assert_eq!(used(&library, "src/a.rs"), ["src/a/b.rs"]);
        // A module that is only named is not used.
        assert_eq!(used(&library, "src/a/b.rs"), ["src/a.rs"]);
        assert_eq!(used(&library, "src/a/c.rs"), ["src/a/b.rs", "src/a/d.rs"]);
        assert_eq!(used(&library, "src/a/d.rs"), ["src/a/c.rs"]);
        assert_eq!(used(&library, "src/f.rs"), ["src/a/b.rs", "src/a/d.rs"]);
        assert!(used(&library, "src/g.rs").is_empty());
    }
}
