// fs.watch() from named functions.
'use strict';

const fs = require('fs');
const readline = require('readline');

function watchHere() {
  return fs.watch('/');
}

function outer() {
  const watcher = watchHere();
  watcher.unref();
  return watcher;
}

readline.createInterface({ input: process.stdin }).on('line', outer).on('close', process.exit);
console.log('ready');
