/* The search of the site without a server: browsers start no worker from a file, so what the worker would run runs
   in a hidden frame. It stands in the place of the polyfill that the theme would load from the network. */
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow, page = inside.document;
      page.open();
      page.write("<!doctype html><body></body>");
      page.close();
      const load = (src) => new Promise((done, failed) => {
        const script = page.createElement("script");
        Object.assign(script, { src, onload: done, onerror: failed });
        page.body.append(script);
      });
      inside.importScripts = (...all) => all.reduce((before, src) => before.then(() => load(src)), Promise.resolve());
      inside.postMessage = (data) => setTimeout(() => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        this.onmessage?.(event);
      });
      this.ready = load(new URL(url, location.href).href);
    }
    postMessage(data) {
      const inside = this.frame.contentWindow;
      this.ready.then(() => inside.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() { this.frame.remove(); }
  };
