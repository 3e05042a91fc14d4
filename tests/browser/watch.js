// Counts the events that a gradio page has sent and that are not answered yet, so that a test can wait for them.
//
// gradio 5 sends an event with a POST: to `/run/...`, whose response is the answer, or to `/queue/join`, whose response
// names the event; its answers then come over the stream of `/queue/data`, the last one as "process_completed".
(() => {
  const original = window.fetch.bind(window);
  const waiting = new Set();
  const completed = new Set();
  let requests = 0;

  const complete = (event) => {
    completed.add(event);
    waiting.delete(event);
  };

  const read = async (body) => {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        const lines = (text + value).split("\n");
        text = lines.pop();
        for (const line of lines.filter((line) => line.startsWith("data:"))) {
          const message = JSON.parse(line.slice(5));
          if (message.msg === "process_completed") complete(message.event_id);
        }
      }
    } catch (error) {
      if (error.name !== "AbortError") throw error; // the page closes the stream when it waits for nothing
    }
  };

  window.fetch = async (input, init) => {
    const path = new URL(input.url ?? input, location.href).pathname;
    const joins = path.endsWith("/queue/join");
    const counts = joins || path.includes("/run/") || path.endsWith("/upload");
    requests += counts;
    try {
      const response = await original(input, init);
      if (joins && response.ok) {
        const { event_id: event } = await response.clone().json();
        if (!completed.has(event)) waiting.add(event);
      } else if (counts) {
        await response.clone().arrayBuffer();
      } else if (path.endsWith("/queue/data") && response.body) {
        const [ours, theirs] = response.body.tee();
        read(ours);
        return new Response(theirs, response);
      }
      return response;
    } finally {
      requests -= counts;
    }
  };

  const turn = () => new Promise((resolve) => setTimeout(() => requestAnimationFrame(resolve), 20));

  // The page sends what an answer sets off within a few turns of its event loop, however slow the machine is.
  window.houndSettled = async () => {
    for (let quiet = 0; quiet < 6; quiet++) {
      await turn();
      if (requests || waiting.size) quiet = -1;
    }
  };
})();
