// Tells the frame around the page: its width, the width that scrolling reaches, and how many elements stand out
// beyond the right edge (those in a box that scrolls by itself, and parts of drawings, may).
addEventListener("load", () => {
  const root = document.documentElement;
  const wide = [...document.querySelectorAll("main *")].filter(element =>
    !element.closest(".scroll, svg") && element.getBoundingClientRect().right > root.clientWidth + 1);
  parent.postMessage([root.clientWidth, root.scrollWidth, wide.length].join(" "), "*");
});
