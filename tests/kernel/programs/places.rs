// The call is made by a method of a trait, from a closure, in main and with an argument in a thread.

use std::ffi::{c_char, c_int};
use std::hint::black_box;
use std::io::{stdin, BufRead};

extern "C" {
    fn inotify_init1(flags: c_int) -> c_int;
    fn inotify_add_watch(fd: c_int, path: *const c_char, mask: u32) -> c_int;
}

mod store {
    pub trait Place {
        fn watch_here(&self) -> i32;
    }

    pub struct Folder<T> {
        pub instance: T,
    }

    impl<T: Into<i32> + Copy> Place for Folder<T> {
        #[inline(never)]
        fn watch_here(&self) -> i32 {
            let root = b"/\0".as_ptr().cast();
            let wd = unsafe { crate::inotify_add_watch(self.instance.into(), root, 0x100) };
            assert!(wd > 0);
            wd
        }
    }

    #[inline(never)]
    pub fn middle(place: &dyn Place) -> i32 {
        std::hint::black_box(place.watch_here()) + 1
    }
}

#[inline(never)]
fn outer(instance: i32) -> i32 {
    black_box(store::middle(black_box(&store::Folder { instance }))) + 1
}

fn main() {
    let threaded = std::env::args().len() > 1;
    let instance = unsafe { inotify_init1(0) };
    println!("ready");
    for _ in stdin().lock().lines() {
        if threaded {
            std::thread::spawn(move || black_box(outer(instance)) + 1).join().unwrap();
        } else {
            black_box(outer(instance));
        }
    }
}
