// Says so where a module of the page is missing: without it, none of the others runs.
addEventListener("error", ({ target }) => {
  if (target.tagName !== "SCRIPT") return;
  const show = () => {
    document.getElementById("loading").hidden = true;
    document.getElementById("failure").hidden = false;
    document.getElementById("failure-text").textContent = "The page is not complete, or the browser "
      + "is too old: a module cannot be loaded. Run `npm ci` and `npm run build`.";
  };
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", show);
  else show();
}, true);
