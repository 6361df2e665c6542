"""One job run five ways: threads, callbacks, greenlets, async/await and generators, to read side by side and measure.

The job is a small upload: look the session up, write the body to a file, insert a row, answer. What is decided
(`job.Upload`) and the services that it asks (`services`) are the same for all five; each program adds only the way in
which it waits. All have the same names: `serve`, `handle`, `Services.ask`. Reading order: job, threads, generators,
then the others. `coro contrast` runs and measures them; docs/contrast.md says what the table shows.
"""
