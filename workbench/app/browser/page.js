// Keys go to the app as soon as it has painted something: nobody has to click into it first.
new MutationObserver((_, observer) => {
  if (document.body.classList.contains("-first-byte")) {
    observer.disconnect();
    document.querySelector("#terminal textarea").focus();
  }
}).observe(document.body, { attributeFilter: ["class"] });
