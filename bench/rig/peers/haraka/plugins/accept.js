'use strict'
// Every recipient will do.
exports.hook_rcpt = (next) => next(OK)
