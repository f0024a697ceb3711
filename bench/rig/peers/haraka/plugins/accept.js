'use strict'
// Every client is one of ours, and may send to everybody.
exports.hook_connect = function (next, connection) {
  connection.relaying = true
  next()
}
exports.hook_rcpt = (next) => next(OK)
