// Gives the frame the size that the address asks for (frame.html?width=390&height=800), and keeps what the page in
// it measures as an attribute of the body, where a dump of the document shows it.
const size = new URLSearchParams(location.search);
const frame = document.querySelector("iframe");
frame.style.width = size.get("width") + "px";
frame.style.height = size.get("height") + "px";
addEventListener("message", event => document.body.setAttribute("data-widths", event.data));
